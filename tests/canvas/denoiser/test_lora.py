from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open

from canvas.denoiser.adapters import copy_without_adapters
from canvas.denoiser.lora import (
    LORA_FILE,
    add_lora,
    fold_lora_weights,
    fuse_loras,
    load_lora,
    merge_lora,
    save_lora,
)
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition
from canvas.denoiser.unet.model import add_inpaint_channels, build_inpaint_input
from tests.canvas import tiny
from tests.canvas.denoiser.test_process import EPS, FLOW


def _sample(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return build_inpaint_input(given["latents"], torch.ones(1, 1, 8, 8), given["latents"])


@pytest.fixture
def trained() -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """A base and the same with a LoRA whose weights have moved from their start."""
    base = add_inpaint_channels(tiny.denoiser())
    tuned = add_lora(copy.deepcopy(base), rank=2, alpha=4)
    torch.manual_seed(3)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return base, tuned


def test_a_copy_without_adapters_is_what_was_before_them(trained):
    base, tuned = trained
    given = tiny.conditions(batch=1)
    before = tiny.predict(tuned, _sample(given), given)
    weak = copy_without_adapters(tuned)
    assert torch.equal(tiny.predict(weak, _sample(given), given), tiny.predict(base, _sample(given), given))
    assert torch.equal(tiny.predict(tuned, _sample(given), given), before)
    merge_lora(tuned)
    assert torch.equal(tiny.predict(weak, _sample(given), given), tiny.predict(base, _sample(given), given))


def test_lora_starts_as_the_base_and_trains_alone():
    base = add_inpaint_channels(tiny.denoiser())
    given = tiny.conditions(batch=1)
    before = tiny.predict(base, _sample(given), given)
    layers = [layer for layer in base.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    tuned = add_lora(base, rank=2, alpha=2)
    assert torch.equal(tiny.predict(tuned, _sample(given), given), before)
    trainable = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert len(trainable) == 2 * len(layers)
    assert all("lora_" in name for name in trainable)


def test_the_same_lora_has_the_same_bytes(tmp_path: Path, trained):
    """peft keeps names in a set, and safetensors writes metadata in another order each time."""
    written = set()
    for number in range(8):
        save_lora(trained[1], tmp_path / str(number))
        written.add((tmp_path / str(number) / LORA_FILE).read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / "0" / LORA_FILE, "pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {"format", "lora_adapter_metadata"}
    names = json.loads(metadata["lora_adapter_metadata"])["unet.target_modules"]
    assert names == sorted(names)
    assert len(names) > 10


def test_lora_reloads_in_stock_diffusers_without_difference(tmp_path: Path, trained):
    base, tuned = trained
    save_lora(tuned, tmp_path)
    stock = tiny.sdxl_inpaint_pipeline(copy.deepcopy(base))
    stock.load_lora_weights(tmp_path)
    given = tiny.conditions(batch=1)
    ours = tiny.predict(tuned, _sample(given), given)
    assert (ours - tiny.predict(base, _sample(given), given)).abs().max() > 1e-2
    assert (tiny.predict(stock.unet, _sample(given), given) - ours).abs().max() == 0.0


def test_stock_diffusers_paints_from_denoiser_lora_and_scheduler_read_from_disk(tmp_path: Path, trained):
    """As canvas-xl trains (eps, DDIM): the same latents as from our own loop."""
    base, tuned = trained
    scheduler = build_training_scheduler(EPS)
    base.save_pretrained(tmp_path / "unet")
    save_lora(tuned, tmp_path / "lora")
    scheduler.save_pretrained(tmp_path / "scheduler")
    stock = tiny.sdxl_inpaint_pipeline(UNet2DConditionModel.from_pretrained(tmp_path / "unet"))
    stock.register_modules(scheduler=DDIMScheduler.from_pretrained(tmp_path / "scheduler"))
    stock.set_progress_bar_config(disable=True)
    given, draw = tiny.conditions(batch=1), torch.Generator().manual_seed(7)
    hole, masked = torch.zeros(1, 1, 8, 8), torch.randn(1, 4, 8, 8, generator=draw)
    hole[..., 4:] = 1

    def painted() -> torch.Tensor:
        return stock(
            image=torch.zeros(1, 3, 64, 64),
            mask_image=hole.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2),
            masked_image_latents=masked,
            height=64,
            width=64,
            prompt_embeds=given["text_states"],
            pooled_prompt_embeds=given["text_pooled"],
            negative_prompt_embeds=torch.zeros_like(given["text_states"]),
            negative_pooled_prompt_embeds=torch.zeros_like(given["text_pooled"]),
            latents=given["latents"],
            num_inference_steps=3,
            guidance_scale=4.0,
            strength=1.0,
            output_type="latent",
        ).images

    without = painted()
    stock.load_lora_weights(tmp_path / "lora")
    condition = Condition(
        states=given["text_states"],
        pooled=given["text_pooled"],
        sizes=given["sizes"],
        hole=hole,
        masked_latents=masked,
    )
    wanted = tiny.sample_latents(tuned, scheduler, given["latents"], condition, steps=3, guidance_scale=4.0)
    torch.testing.assert_close(painted(), wanted, rtol=1e-4, atol=1e-4)
    assert (without - wanted).abs().max() > 1e-2

    stock.register_modules(scheduler=build_training_scheduler(FLOW))
    with pytest.raises(AttributeError, match="init_noise_sigma"):  # as docs/how-to/styles.md says
        painted()


def test_lora_reloads_here_and_merges(tmp_path: Path, trained):
    base, tuned = trained
    save_lora(tuned, tmp_path)
    again = load_lora(copy.deepcopy(base), tmp_path)
    given = tiny.conditions(batch=1)
    wanted = tiny.predict(tuned, _sample(given), given)
    assert torch.equal(tiny.predict(again, _sample(given), given), wanted)
    merged = merge_lora(again)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(tiny.predict(merged, _sample(given), given), wanted, rtol=1e-4, atol=1e-4)


def test_folded_a_lora_paints_and_learns_the_same(trained):
    _, tuned = trained
    given = tiny.conditions(batch=1)

    def gradients(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
        unet.zero_grad()
        added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
        out = unet(_sample(given), torch.tensor(500.0), given["text_states"], added_cond_kwargs=added)
        out.sample.square().mean().backward()
        return {name: weight.grad for name, weight in unet.named_parameters() if weight.grad is not None}

    painted, learnt = tiny.predict(tuned, _sample(given), given), gradients(tuned)
    with fold_lora_weights(tuned):
        torch.testing.assert_close(tiny.predict(tuned, _sample(given), given), painted, rtol=1e-4, atol=1e-5)
        once = gradients(tuned)
        copied = copy.deepcopy(tuned)  # as fsdp trains a copy
        for name, weight in copied.named_parameters():
            if "lora_B" in name:
                torch.nn.init.zeros_(weight)
        assert (tiny.predict(copied, _sample(given), given) - painted).abs().max() > 1e-2
    assert once.keys() == learnt.keys()
    assert all("lora_" in name for name in once)
    for name, gradient in learnt.items():
        torch.testing.assert_close(once[name], gradient, rtol=1e-3, atol=1e-6)
    assert torch.equal(tiny.predict(tuned, _sample(given), given), painted)
    assert not [layer for layer in tuned.modules() if "forward" in vars(layer)]


def test_a_directory_without_lora_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no pytorch_lora_weights\.safetensors"):
        load_lora(tiny.denoiser(), tmp_path)


def test_fused_within_and_as_before_after(trained, tmp_path: Path):
    base, tuned = trained
    given = tiny.conditions(batch=1)
    save_lora(tuned, tmp_path)
    both = load_lora(load_lora(copy.deepcopy(base), tmp_path, "one"), tmp_path, "two").eval()
    both.set_adapters(["one", "two"])
    before = tiny.predict(both, _sample(given), given)
    with fuse_loras(both, ["one"]):
        assert torch.allclose(
            tiny.predict(both, _sample(given), given), tiny.predict(tuned, _sample(given), given), atol=1e-5
        )
    with fuse_loras(both, []):
        assert torch.allclose(
            tiny.predict(both, _sample(given), given), tiny.predict(base, _sample(given), given), atol=1e-5
        )
    assert torch.allclose(tiny.predict(both, _sample(given), given), before, atol=1e-5)
    with fuse_loras(base, []):
        tiny.predict(base, _sample(given), given)
