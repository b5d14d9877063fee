from __future__ import annotations

import torch

from canvas.denoiser.image_prompt import get_embedding_width, resolve_layer_scales, use_image_prompts
from canvas.denoiser.lora import add_lora
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition, cache_projections
from tests.canvas import tiny
from tests.canvas.denoiser.test_image_prompt import moved
from tests.canvas.denoiser.test_process import FLOW


def _counted(unet, what: str = "attn2.to_k") -> list[int]:
    """Grows by one each time a key of the text states (or `what`) is really computed."""
    calls: list[int] = []
    key = next(layer for name, layer in unet.named_modules() if name.endswith(what))
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
        with cache_projections(unet):
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
    with cache_projections(unet):
        tiny.predict(unet, first["latents"], first)
        assert torch.equal(tiny.predict(unet, first["latents"], second), plain)


def test_sampling_projects_once_and_equals_a_plain_loop():
    unet = tiny.denoiser()
    given = tiny.conditions(batch=2)
    condition = Condition(states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"])
    calls = _counted(unet)
    sampled = tiny.sample_latents(
        unet, build_training_scheduler(FLOW), given["latents"], condition, steps=4, guidance_scale=3.0
    )
    assert len(calls) == 1

    scheduler = build_training_scheduler(FLOW)
    scheduler.set_timesteps(4)
    x = given["latents"]
    nothing = {name: torch.zeros_like(given[name]) for name in ("text_states", "text_pooled")}
    with torch.no_grad():
        for time in scheduler.timesteps:
            answers = []
            for texts in (given | nothing, given):
                added = {"text_embeds": texts["text_pooled"], "time_ids": texts["sizes"]}
                answers.append(unet(x, time, texts["text_states"], added_cond_kwargs=added).sample)
            x = scheduler.step(answers[0] + 3 * (answers[1] - answers[0]), time, x).prev_sample
    torch.testing.assert_close(sampled, x, atol=1e-5, rtol=1e-5)


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
    together = tiny.sample_latents(
        unet, build_training_scheduler(FLOW), given["latents"], one, steps=2, guidance_scale=2.0
    )
    for row in range(3):
        alone = tiny.sample_latents(
            unet, build_training_scheduler(FLOW), given["latents"][row : row + 1], one, steps=2, guidance_scale=2.0
        )
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_image_tokens_are_projected_once_too():
    unet = moved(tiny.denoiser())
    given = tiny.conditions(batch=3)
    pictures = torch.randn(3, 2, get_embedding_width(unet), generator=torch.Generator().manual_seed(4))
    condition = Condition(
        states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"], image_embeddings=pictures
    )
    sets = [resolve_layer_scales(unet, scale) for scale in (0.4, 0.6)]
    names = ("attn2.processor.to_k_ip.0", "attn2.processor.to_v_ip.1", "image_projection_layers.0.image_embeds")

    def sampled(**options):
        with use_image_prompts(unet, sets):
            calls = [_counted(unet, name) for name in names]
            latents = tiny.sample_latents(
                unet,
                build_training_scheduler(FLOW),
                given["latents"],
                condition,
                steps=4,
                guidance_scale=3.0,
                **options,
            )
        return latents, [len(each) for each in calls]

    whole, calls = sampled()
    assert calls == [1, 1, 2]  # a projection of each set
    left, calls = sampled(selectors={2: lambda clean: [2, 0]})
    assert calls == [2, 2, 4]  # after the choice there are other rows
    torch.testing.assert_close(left, whole[[2, 0]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(_stepwise(unet, given, pictures, sets), whole, atol=1e-5, rtol=1e-5)


def _stepwise(unet, given, pictures, sets):
    """The same without memory, guided against no caption and no picture."""
    scheduler = build_training_scheduler(FLOW)
    scheduler.set_timesteps(4)
    x = given["latents"]
    with torch.no_grad(), use_image_prompts(unet, sets):
        for time in scheduler.timesteps:
            answers = []
            for share in (0, 1):
                added = {"text_embeds": share * given["text_pooled"], "time_ids": given["sizes"]}
                added["image_embeds"] = [share * pictures[:, :1], share * pictures[:, 1:]]
                answers.append(unet(x, time, share * given["text_states"], added_cond_kwargs=added).sample)
            x = scheduler.step(answers[0] + 3 * (answers[1] - answers[0]), time, x).prev_sample
    return x


def test_without_a_picture_the_image_tokens_are_those_of_zeros():
    unet = moved(tiny.denoiser())
    given = tiny.conditions(batch=2)
    answers = []
    for picture in (None, torch.zeros(1, 1, get_embedding_width(unet))):
        condition = Condition(
            states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"], image_embeddings=picture
        )
        answers.append(
            tiny.sample_latents(
                unet, build_training_scheduler(FLOW), given["latents"], condition, steps=2, guidance_scale=1.0
            )
        )
    assert torch.equal(*answers)
