from __future__ import annotations

import torch

from canvas.diffusion.process import training_scheduler
from canvas.inference.attention import projections_once
from canvas.inference.denoise import Condition, denoised
from canvas.models.adapters import add_lora
from tests.canvas.diffusion.test_process import FLOW
from tests.canvas.models import tiny


def _counted(unet) -> list[int]:
    """Grows by one each time a key of the text states is really computed."""
    calls: list[int] = []
    key = next(layer for name, layer in unet.named_modules() if name.endswith("attn2.to_k"))
    compute = key.forward

    def counted(*args):
        calls.append(1)
        return compute(*args)

    key.forward = counted
    return calls


def test_same_output_from_one_projection():
    for unet in (tiny.denoiser(), add_lora(tiny.denoiser(), rank=2, alpha=2)):
        given = tiny.conditions(batch=2)
        plain = [tiny.predict(unet, given["latents"] + step, given) for step in range(3)]
        calls = _counted(unet)
        with projections_once(unet):
            once = [tiny.predict(unet, given["latents"] + step, given) for step in range(3)]
        assert len(calls) == 1
        for a, b in zip(plain, once, strict=True):
            assert (a - b).abs().max() <= 1e-6
        tiny.predict(unet, given["latents"], given)
        assert len(calls) == 2


def test_other_states_are_projected_anew():
    unet = tiny.denoiser()
    first, second = tiny.conditions(batch=1, seed=1), tiny.conditions(batch=1, seed=2)
    plain = tiny.predict(unet, first["latents"], second)
    with projections_once(unet):
        tiny.predict(unet, first["latents"], first)
        assert torch.equal(tiny.predict(unet, first["latents"], second), plain)


def test_sampling_projects_once_and_equals_a_plain_loop():
    unet = tiny.denoiser()
    given = tiny.conditions(batch=2)
    condition = Condition(states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"])
    calls = _counted(unet)
    found = denoised(unet, training_scheduler(FLOW), given["latents"], condition, steps=4, guidance_scale=3.0)
    assert len(calls) == 1

    scheduler = training_scheduler(FLOW)
    scheduler.set_timesteps(4)
    x = given["latents"]
    nothing = {name: torch.zeros_like(given[name]) for name in ("text_states", "text_pooled")}
    with torch.no_grad():
        for time in scheduler.timesteps:
            answers = []
            for told in (given | nothing, given):
                added = {"text_embeds": told["text_pooled"], "time_ids": told["sizes"]}
                answers.append(unet(x, time, told["text_states"], added_cond_kwargs=added).sample)
            x = scheduler.step(answers[0] + 3 * (answers[1] - answers[0]), time, x).prev_sample
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-5)


def test_one_condition_serves_all_latents():
    unet = tiny.denoiser()
    given = tiny.conditions(batch=3)
    one = Condition(
        states=given["text_states"][:1],
        pooled=given["text_pooled"][:1],
        sizes=given["sizes"][:1],
        negative_states=given["text_states"][1:2],
        negative_pooled=given["text_pooled"][1:2],
    )
    together = denoised(unet, training_scheduler(FLOW), given["latents"], one, steps=2, guidance_scale=2.0)
    for row in range(3):
        alone = denoised(
            unet, training_scheduler(FLOW), given["latents"][row : row + 1], one, steps=2, guidance_scale=2.0
        )
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)
