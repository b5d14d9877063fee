from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from canvas.denoiser.loading import build_denoiser, load_denoiser
from canvas.denoiser.unet.model import add_inpaint_channels, build_inpaint_input, build_unet_config
from canvas.denoiser.unet.spec import UNetSpec
from tests.canvas import tiny

SIZES = {"latent_channels": 4, "sample_size": 8, "text_width": tiny.TEXT_WIDTH, "pooled_width": tiny.POOLED_WIDTH}
SDXL = UNetSpec(
    channels=(320, 640, 1280),
    layers_per_block=2,
    transformer_layers=(0, 2, 10),
    heads=(5, 10, 20),
    size_embedding=256,
    norm_groups=32,
)


def test_sdxl_has_its_published_number_of_parameters():
    with torch.device("meta"):
        unet = build_denoiser(
            dataclasses.replace(tiny.DENOISER, unet=SDXL),
            latent_channels=4,
            sample_size=128,
            text_width=2048,
            pooled_width=1280,
        )
    assert sum(weight.numel() for weight in unet.parameters()) == 2_567_463_684
    extra = (2 * 4 + 1 - 4) * 320 * 3 * 3
    assert sum(weight.numel() for weight in add_inpaint_channels(unet).parameters()) == 2_567_463_684 + extra


def test_inpainting_starts_as_the_base():
    given = tiny.conditions(batch=2)
    base = tiny.denoiser()
    before = tiny.predict(base, given["latents"], given)
    inpaint = add_inpaint_channels(base)
    hole = torch.rand(1, 1, 8, 8).round()
    sample = build_inpaint_input(given["latents"], hole, torch.randn(1, 4, 8, 8) * 100)
    torch.testing.assert_close(tiny.predict(inpaint, sample, given), before, rtol=0, atol=0)


def test_new_inputs_learn():
    given = tiny.conditions(batch=1)
    inpaint = add_inpaint_channels(tiny.denoiser())
    sample = build_inpaint_input(given["latents"], torch.ones(1, 1, 8, 8), given["latents"])
    added = {"text_embeds": given["text_pooled"], "time_ids": given["sizes"]}
    inpaint(sample, 500, given["text_states"], added_cond_kwargs=added).sample.square().mean().backward()
    gradient = inpaint.conv_in.weight.grad
    assert gradient is not None
    assert (gradient[:, 4:].abs().amax(dim=(0, 2, 3)) > 0).all()


def test_inpaint_channels_come_once():
    with pytest.raises(ValueError, match="already has 9 input channels for 4"):
        add_inpaint_channels(add_inpaint_channels(tiny.denoiser()))


def assert_same(
    ours: UNet2DConditionModel, other: UNet2DConditionModel, sample: torch.Tensor, given: dict[str, torch.Tensor]
) -> None:
    """The same weights to the bit; some processors round differently where weights lie elsewhere in memory."""
    torch.testing.assert_close(ours.state_dict(), other.state_dict(), rtol=0, atol=0)
    predictions = (tiny.predict(unet.eval(), sample, given) for unet in (ours, other))
    torch.testing.assert_close(*predictions, rtol=1e-4, atol=1e-5)


def test_starts_from_a_public_sdxl_directory(tmp_path: Path):
    public = tiny.public_sdxl(tmp_path)
    spec = dataclasses.replace(tiny.DENOISER, init_from=str(tmp_path))
    unet = build_denoiser(spec, **SIZES)
    given = tiny.conditions(batch=1)
    assert_same(unet, public.unet, given["latents"], given)


def test_public_weights_of_other_frames_are_refused(tmp_path: Path):
    tiny.denoiser().save_pretrained(tmp_path)
    spec = dataclasses.replace(tiny.DENOISER, init_from=str(tmp_path))
    with pytest.raises(ValueError, match=r"has sample_size 8, frames\.side gives 16 latent cells: set frames"):
        build_denoiser(spec, **SIZES | {"sample_size": 16})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (32, 96)}, "has block_out_channels .*the params say"),
        ({"transformer_layers": (0, 2)}, "has transformer_layers_per_block"),
        ({"transformer_layers": (1, 1)}, "has down_block_types"),
        ({"size_embedding": 16}, "has addition_time_embed_dim 8"),
    ],
)
def test_public_weights_of_another_architecture_are_refused(tmp_path: Path, change, message):
    tiny.denoiser().save_pretrained(tmp_path)
    sizes = dataclasses.replace(tiny.UNET, **change)
    spec = dataclasses.replace(tiny.DENOISER, init_from=str(tmp_path), unet=sizes)
    with pytest.raises(ValueError, match=message):
        build_denoiser(spec, **SIZES)


def test_missing_directory_is_named():
    with pytest.raises(ValueError, match=r"'\./nowhere' is neither a directory nor a hub id"):
        load_denoiser("./nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (2,)}, r"denoiser\.unet\.heads has 1 entries for 2"),
        ({"channels": (32, 40)}, r"\[40\] cannot be split"),
    ],
)
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny.UNET, **change)


def test_stock_diffusers_loads_what_we_save(tmp_path: Path):
    unet = add_inpaint_channels(tiny.denoiser())
    unet.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path).eval()
    given = tiny.conditions(batch=1)
    sample = build_inpaint_input(given["latents"], torch.ones(1, 1, 8, 8), given["latents"])
    assert_same(unet, again, sample, given)
    assert [file.suffix for file in tmp_path.iterdir() if "model" in file.name] == [".safetensors"]


def test_demo_config_differs_from_sdxl_in_sizes_only():
    demo = build_unet_config(tiny.UNET, **SIZES)
    full = build_unet_config(SDXL, latent_channels=4, sample_size=128, text_width=2048, pooled_width=1280)
    assert demo.keys() == full.keys()
