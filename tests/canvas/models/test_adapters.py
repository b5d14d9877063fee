from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from canvas.models.adapters import add_lora, fused, load_lora, lora_targets, merge_lora, save_lora
from canvas.models.denoiser import add_inpaint_channels, inpaint_input
from tests.canvas.models import tiny


def _sample(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return inpaint_input(given["latents"], torch.ones(1, 1, 8, 8), given["latents"])


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


def test_lora_starts_as_the_base_and_trains_alone():
    base = add_inpaint_channels(tiny.denoiser())
    given = tiny.conditions(batch=1)
    before = tiny.predict(base, _sample(given), given)
    layers = lora_targets(base)
    tuned = add_lora(base, rank=2, alpha=2)
    assert torch.equal(tiny.predict(tuned, _sample(given), given), before)
    trainable = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert len(trainable) == 2 * len(layers)
    assert all("lora_" in name for name in trainable)


def test_lora_reloads_in_stock_diffusers_without_difference(tmp_path: Path, trained):
    base, tuned = trained
    save_lora(tuned, tmp_path)
    stock = tiny.sdxl_inpaint_pipeline(copy.deepcopy(base))
    stock.load_lora_weights(tmp_path)
    given = tiny.conditions(batch=1)
    ours = tiny.predict(tuned, _sample(given), given)
    assert (ours - tiny.predict(base, _sample(given), given)).abs().max() > 1e-2
    assert (tiny.predict(stock.unet, _sample(given), given) - ours).abs().max() == 0.0


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
    with fused(both, ["one"]):
        assert torch.allclose(
            tiny.predict(both, _sample(given), given), tiny.predict(tuned, _sample(given), given), atol=1e-5
        )
    with fused(both, []):
        assert torch.allclose(
            tiny.predict(both, _sample(given), given), tiny.predict(base, _sample(given), given), atol=1e-5
        )
    assert torch.allclose(tiny.predict(both, _sample(given), given), before, atol=1e-5)
    with fused(base, []):
        tiny.predict(base, _sample(given), given)
