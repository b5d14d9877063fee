from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.vae.model import (
    PixelAutoencoder,
    build_vae,
    fold_latent_scale,
    get_latent_scale,
    get_scale_factor,
    load_vae,
    store_latent_statistics,
)
from canvas.vae.spec import VaeSpec
from tests.canvas import tiny

PIXEL = VaeSpec(
    kind="pixel", channels=(16, 32), layers_per_block=1, latent_channels=6, patch=4, norm_groups=8, init_from=None
)
KL = dataclasses.replace(PIXEL, kind="kl", channels=(16, 16, 16, 32), patch=None, latent_channels=4)
SDXL = dataclasses.replace(KL, channels=(128, 256, 512, 512), layers_per_block=2, norm_groups=32)


@pytest.mark.parametrize("spec", [PIXEL, KL], ids=["pixel", "kl"])
def test_both_kinds_have_one_interface(spec: VaeSpec):
    vae = build_vae(spec, sample_size=64)
    images = torch.rand(2, 3, 48, 64) * 2 - 1
    posterior = vae.encode(images).latent_dist
    assert posterior.mean.shape == (2, spec.latent_channels, 6, 8) == posterior.std.shape
    assert spec.factor == get_scale_factor(vae) == 8
    assert vae.decode(posterior.mode()).sample.shape == images.shape
    assert vae(images).sample.shape == images.shape


def test_sdxl_vae_is_expressible():
    with torch.device("meta"):
        vae = build_vae(SDXL, sample_size=1024)
    assert sum(weight.numel() for weight in vae.parameters()) == 83_653_863


@pytest.mark.parametrize("spec", [PIXEL, KL], ids=["pixel", "kl"])
def test_saves_and_starts_from_what_was_saved(spec: VaeSpec, tmp_path: Path):
    vae = build_vae(spec, sample_size=64).eval()
    images = torch.rand(1, 3, 64, 64)
    store_latent_statistics(vae, [{"images": tensor_to_bytes(images)}])
    vae.save_pretrained(tmp_path)
    again = build_vae(dataclasses.replace(spec, init_from=str(tmp_path)), sample_size=64).eval()
    assert type(again) is type(vae)
    assert torch.equal(again(images).sample, vae(images).sample)
    assert torch.equal(get_latent_scale(again).mean, get_latent_scale(vae).mean)


def test_without_statistics_the_factors_of_the_config_count():
    """As Flux's pipelines undo them."""
    vae = build_vae(KL, sample_size=64)
    vae.register_to_config(scaling_factor=0.3611, shift_factor=0.1159)
    raw = torch.randn(1, 4, 2, 2)
    scale = get_latent_scale(vae)
    torch.testing.assert_close(scale.normalize(raw), (raw - 0.1159) * 0.3611)
    torch.testing.assert_close(scale.denormalize(scale.normalize(raw)), raw)


def test_starts_from_a_public_sdxl_directory(tmp_path: Path):
    public = tiny.public_sdxl(tmp_path).vae
    spec = dataclasses.replace(KL, channels=(32, 64, 64, 64), layers_per_block=2, norm_groups=32)
    vae = build_vae(dataclasses.replace(spec, init_from=str(tmp_path)), sample_size=64).eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(vae(images).sample, public(images).sample)
    latents = torch.randn(1, 4, 8, 8)
    assert torch.allclose(get_latent_scale(vae).normalize(latents), latents * 0.13025)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_channels": 4}, r"vae\.latent_channels is 4, but .* has 6"),
        ({"channels": (16, 16)}, r"vae\.channels is \(16, 16\)"),
        ({"kind": "kl", "patch": None}, r"vae\.kind is kl"),
    ],
)
def test_weights_of_another_size_are_refused(change, message, tmp_path: Path):
    build_vae(PIXEL, sample_size=64).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_vae(dataclasses.replace(PIXEL, init_from=str(tmp_path), **change), sample_size=64)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"patch": None}, r"vae\.patch is None for kind 'pixel'"), ({"channels": (20, 32)}, r"\[20\] cannot be split")],
)
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PIXEL, **change)


def test_size_must_hold_whole_cells():
    with pytest.raises(ValueError, match="60 pixels do not fit latent cells of 8"):
        build_vae(PIXEL, sample_size=60)


def test_another_kind_of_model_is_named(tmp_path: Path):
    tiny.denoiser().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a UNet2DConditionModel: the autoencoder must be one of"):
        load_vae(tmp_path)


def test_statistics_make_unit_latents_and_come_back():
    vae = PixelAutoencoder(channels=(16,), layers_per_block=1, latent_channels=3, patch=4, norm_num_groups=8)
    vae.eval()
    draw = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (4, 3, 16, 16), generator=draw, dtype=torch.uint8) for _ in range(3)]
    store_latent_statistics(vae, [{"images": batch} for batch in images])
    with torch.no_grad():
        posteriors = [vae.encode(bytes_to_tensor(batch)).latent_dist for batch in images]
    scale = get_latent_scale(vae)
    raw = torch.cat([posterior.mean for posterior in posteriors])
    noise = torch.cat([posterior.var for posterior in posteriors])
    seen = scale.normalize(raw)
    torch.testing.assert_close(seen.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    total = seen.var(dim=(0, 2, 3), unbiased=False) + (noise / scale.std[:, None, None] ** 2).mean(dim=(0, 2, 3))
    torch.testing.assert_close(total, torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(scale.denormalize(seen), raw, atol=1e-5, rtol=1e-5)


def test_statistics_need_images_and_live_channels():
    vae = build_vae(PIXEL, sample_size=64)
    with pytest.raises(ValueError, match="of no image"):
        store_latent_statistics(vae, [])
    with torch.no_grad():
        vae.analysis.weight.zero_()
        vae.encoder[-1].bias.fill_(-40)
    with pytest.raises(ValueError, match=r"channels \[0, 1, 2, 3, 4, 5\] never vary"):
        store_latent_statistics(vae, [{"images": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)}])


def test_scale_of_sdxl_is_its_scaling_factor():
    vae = AutoencoderKL(scaling_factor=0.13025)
    raw = torch.randn(1, 4, 2, 2)
    assert torch.allclose(get_latent_scale(vae).normalize(raw), raw * 0.13025)


@pytest.mark.parametrize("has_edges", [True, False], ids=["1x1 edges", "none"])
def test_folded_scale_changes_nothing(has_edges: bool, tmp_path: Path) -> None:
    """Flux's own autoencoder has no convolutions of one pixel at its edges, SDXL's has."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        use_quant_conv=has_edges,
        use_post_quant_conv=has_edges,
    ).eval()
    vae.register_to_config(latents_mean=[0.3, -0.2, 0.0, 1.0], latents_std=[0.5, 2.0, 1.0, 0.1], scaling_factor=0.8)
    fold_latent_scale(vae).save_pretrained(tmp_path)
    folded, scale = AutoencoderKL.from_pretrained(tmp_path).eval(), get_latent_scale(vae)
    assert (folded.config["scaling_factor"], folded.config["shift_factor"]) == (1.0, 0.0)
    assert folded.config["latents_mean"] is None
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        before, after = vae.encode(images).latent_dist, folded.encode(images).latent_dist
        torch.testing.assert_close(after.mean, scale.normalize(before.mean), rtol=1e-4, atol=1e-5)
        std = before.std / scale.std[:, None, None] * scale.scale
        torch.testing.assert_close(after.std, std, rtol=1e-4, atol=1e-5)
        decoded = vae.decode(before.mean).sample
        torch.testing.assert_close(folded.decode(after.mean).sample, decoded, rtol=1e-4, atol=1e-4)
        assert vae.config["scaling_factor"] == 0.8


def _low_frequencies(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic") * 2 - 1


def test_fitted_latents_are_principal_components_and_the_way_back_sees_their_neighbours():
    images = _low_frequencies(16)
    vae = build_vae(PIXEL, sample_size=32).eval()
    vae.fit_patches(lambda: images.split(5))
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mean
        error = (vae.decode(latents).sample - images).square().mean()
    power = latents.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(power, torch.ones(PIXEL.latent_channels), rtol=1e-3, atol=0)

    cell = 32 // latents.shape[-1]
    patches = torch.nn.functional.unfold(images, cell, stride=cell).transpose(1, 2).flatten(0, 1)
    centred = patches - images.mean(dim=(0, 2, 3)).repeat_interleave(cell**2)
    alone = latents.flatten(2).transpose(1, 2).flatten(0, 1)
    left_over = torch.linalg.svdvals(centred)[PIXEL.latent_channels :].square().sum() / patches.numel()
    torch.testing.assert_close(_left_of(patches, alone), left_over, rtol=1e-2, atol=1e-7)
    edged = torch.nn.functional.pad(latents, (1, 1, 1, 1), mode="replicate")
    beside = torch.nn.functional.unfold(edged, 3).transpose(1, 2).flatten(0, 1)
    best = _left_of(patches, beside)
    assert best < 0.9 * left_over
    assert best * 0.999 <= error < 1.02 * best  # noise on the latents was reckoned with


def _left_of(wanted: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean square that the best linear map leaves."""
    known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
    return (known @ torch.linalg.lstsq(known, wanted).solution - wanted).square().mean()


def test_flat_images_cannot_be_fitted():
    with pytest.raises(ValueError, match="vary in fewer than 6 directions"):
        build_vae(PIXEL, sample_size=32).fit_patches(lambda: [torch.zeros(2, 3, 32, 32)])
