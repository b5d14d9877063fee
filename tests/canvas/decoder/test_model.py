from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from canvas.decoder.model import ConditionalDecoder, DecoderObjective
from canvas.decoder.spec import DecoderSpec
from canvas.masks.composite import (
    MAX_SHIFT,
    bound_shift,
    composite_product,
    compute_seam_gradient,
    dilate_mask,
    erode_mask,
    max_pool_mask,
)
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.train.draws import Draws
from canvas.vae.model import LatentScale, PixelAutoencoder, build_vae
from canvas.vae.objective import ImageLoss
from tests.canvas.vae.test_model import KL, PIXEL
from tests.canvas.vae.test_objective import WEIGHTS

BOTH = pytest.mark.parametrize("vae_spec", [PIXEL, KL], ids=["pixel", "kl"])


def _spec(vae_spec) -> DecoderSpec:
    return DecoderSpec(
        channels=(16,) * len(vae_spec.channels), layers_per_block=1, norm_groups=8, erosion=2, mosaic=None
    )


def _known(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, a mask of a box that touches the right edge, and an alpha softer than it."""
    images = torch.randint(0, 256, (batch, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(batch, 1, 32, 32)
    mask[..., 8:24, 16:] = 1
    alpha = torch.nn.functional.avg_pool2d(mask, 5, stride=1, padding=2, count_include_pad=False)
    return images, mask, alpha


UNIT = LatentScale(torch.zeros(6), torch.ones(6), 1.0)


def _moved(decoder: ConditionalDecoder) -> ConditionalDecoder:
    """The decoder with all its zero-initialised weights set to something."""
    torch.manual_seed(1)
    zeroed = [*decoder.inject, decoder.blend[0]]
    if isinstance(decoder.trunk, PixelAutoencoder):
        zeroed.append(decoder.trunk.decoder[-2])
    for layer in zeroed:
        torch.nn.init.normal_(layer.weight, std=0.5)
    return decoder.eval()


@BOTH
@torch.no_grad()
def test_core_is_exact_as_bytes(vae_spec):
    decoder = _moved(ConditionalDecoder.from_vae(build_vae(vae_spec, sample_size=32), _spec(vae_spec)))
    images, mask, alpha = _known()
    latents = torch.randn(2, vae_spec.latent_channels, 4, 4) * 5
    out = tensor_to_bytes(decoder(latents, bytes_to_tensor(images), mask, alpha))
    core = erode_mask(mask, 2).expand_as(images)
    assert core.sum() == 2 * 3 * 12 * 14
    assert (out.int() - images.int()).abs()[core].max() == 0
    assert (out.int() - images.int()).abs()[~core].max() > 50


@BOTH
@torch.no_grad()
def test_starts_as_the_autoencoder(vae_spec):
    vae = build_vae(vae_spec, sample_size=32).eval()
    decoder = ConditionalDecoder.from_vae(vae, _spec(vae_spec)).eval()
    images, mask, alpha = _known()
    latents = torch.randn(2, vae_spec.latent_channels, 4, 4)
    pictures, shift = decoder.decode(latents, decoder.encode_condition(bytes_to_tensor(images), mask, alpha))
    torch.testing.assert_close(pictures, vae.decode(latents).sample)
    assert shift.abs().max() == 0


@BOTH
@torch.no_grad()
def test_mask_alpha_and_image_are_all_consumed(vae_spec):
    decoder = _moved(ConditionalDecoder.from_vae(build_vae(vae_spec, sample_size=32), _spec(vae_spec)))
    images, mask, alpha = _known(1)
    known = bytes_to_tensor(images)
    latents = torch.randn(1, vae_spec.latent_channels, 4, 4)
    before, _ = decoder.decode(latents, decoder.encode_condition(known, mask, alpha))
    less = mask.clone()
    less[..., 8:12, :] = 0
    for changed in ((known.roll(1, 3), mask, alpha), (known, mask, alpha * 0.5)):
        assert (decoder.decode(latents, decoder.encode_condition(*changed))[0] - before).abs().max() > 1e-3
    grey = torch.zeros_like(known)  # the masked image is the same, only the mask differs
    one, other = (decoder.decode(latents, decoder.encode_condition(grey, m, alpha))[0] for m in (mask, less))
    assert (one - other).abs().max() > 1e-3


@torch.no_grad()
def test_what_is_generated_does_not_see_what_was_there():
    decoder = _moved(ConditionalDecoder.from_vae(build_vae(PIXEL, sample_size=32), _spec(PIXEL)))
    images, mask, alpha = _known(1)
    other = torch.where(mask.expand_as(images) > 0.5, images, 255 - images)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            decoder.encode_condition(bytes_to_tensor(images), mask, alpha),
            decoder.encode_condition(bytes_to_tensor(other), mask, alpha),
            strict=True,
        )
    )


@torch.no_grad()
def test_known_features_serve_all_candidates():
    decoder = _moved(ConditionalDecoder.from_vae(build_vae(PIXEL, sample_size=32), _spec(PIXEL)))
    images, mask, alpha = _known(1)
    latents = torch.randn(3, 6, 4, 4)
    once, _ = decoder.decode(latents, decoder.encode_condition(bytes_to_tensor(images), mask, alpha))
    each = torch.cat(
        [
            decoder.decode(row[None], decoder.encode_condition(bytes_to_tensor(images), mask, alpha))[0]
            for row in latents
        ]
    )
    torch.testing.assert_close(once, each, atol=1e-5, rtol=1e-5)


@BOTH
@torch.no_grad()
def test_saves_and_loads(vae_spec, tmp_path: Path):
    decoder = _moved(ConditionalDecoder.from_vae(build_vae(vae_spec, sample_size=32), _spec(vae_spec)))
    decoder.save_pretrained(tmp_path)
    again = ConditionalDecoder.from_pretrained(tmp_path).eval()
    images, mask, alpha = _known()
    latents = torch.randn(2, vae_spec.latent_channels, 4, 4)
    known = bytes_to_tensor(images)
    assert torch.equal(again(latents, known, mask, alpha), decoder(latents, known, mask, alpha))
    assert not any("encoder" in name.split(".")[1] for name, _ in again.named_parameters())


def test_widths_must_match_the_autoencoder():
    spec = dataclasses.replace(_spec(PIXEL), channels=(16, 16, 16))
    with pytest.raises(ValueError, match=r"decoder\.channels has 3 entries, the autoencoder 2"):
        ConditionalDecoder.from_vae(build_vae(PIXEL, sample_size=32), spec)


def test_training_uses_what_is_known():
    """Latents say nothing here, so only the masked image can lower the loss on the product's band."""
    torch.manual_seed(0)
    decoder = ConditionalDecoder.from_vae(build_vae(PIXEL, sample_size=32), _spec(PIXEL))
    images, mask, alpha = _known()
    batch = {
        "pin_id": ["a", "b"],
        "images": images,
        "latents": torch.zeros(2, 6, 4, 4),
        "mask": mask,
        "alpha": alpha,
        "target_mask": mask,
    }
    objective = DecoderObjective(ImageLoss(WEIGHTS), scale=UNIT, latent_noise=0)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss, outputs = objective(decoder, batch, Draws(seed=0, step=step, first=0, samples=2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert outputs["reconstructions"].shape == images.shape


def test_noise_reaches_encoded_latents_alone():
    seen = []

    class Listening(torch.nn.Module):
        def forward(self, latents: torch.Tensor, images: torch.Tensor, *known: torch.Tensor) -> torch.Tensor:
            seen.append(latents)
            return images

    images, mask, alpha = _known()
    truth = torch.stack([torch.ones_like(mask[0]), mask[1]])
    latents = torch.full((2, 6, 16, 16), 3.0)
    batch = {
        "pin_id": ["a", "b"],
        "images": images,
        "latents": latents,
        "mask": mask,
        "alpha": alpha,
        "target_mask": truth,
    }
    scale = LatentScale(torch.zeros(6), torch.full((6,), 10.0), 1.0)
    objective = DecoderObjective(ImageLoss(WEIGHTS), scale=scale, latent_noise=0.5)
    for step in range(8):
        objective(Listening(), batch, Draws(seed=0, step=step, first=0, samples=2))
    encoded, painted = torch.stack(seen).unbind(1)
    torch.testing.assert_close(painted, torch.full_like(painted, 3.0))
    spreads = encoded.std(dim=(1, 2, 3)) / 10
    assert 0 < spreads.min() < 0.25 < spreads.max() < 0.55


def test_core_keeps_the_images_edge():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:, 2:] = 1
    assert erode_mask(mask, 1)[0, 0].nonzero().amin(dim=0).tolist() == [3, 3]
    assert erode_mask(mask, 1)[0, 0].nonzero().amax(dim=0).tolist() == [7, 7]
    assert torch.equal(erode_mask(mask, 0), mask > 0.5)
    assert dilate_mask(mask, 1)[0, 0].nonzero().amin(dim=0).tolist() == [1, 1]


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 31), (3, 32, 32), (1, 64, 9)])
@pytest.mark.parametrize("hard", [True, False])
def test_an_axis_at_a_time_is_pooling_of_both(size, pixels, hard):
    mask = torch.rand(size[0], 1, *size[1:], generator=torch.Generator().manual_seed(0))
    mask = (mask > 0.9).float() if hard else mask
    mask[0, :, 0, -1] = 1  # at the image's edge
    both = torch.nn.functional.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)
    pooled = max_pool_mask(mask, pixels)
    assert torch.equal(pooled, both)
    assert pooled.stride() == both.stride()


def test_composite_blends_by_alpha_and_leaves_the_rest():
    generated, product = torch.zeros(1, 3, 1, 4), torch.ones(1, 3, 1, 4)
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    alpha = torch.tensor([0.9, 0.5, 0.25, 0.0]).view(1, 1, 1, 4)
    core = torch.tensor([True, False, False, False]).view(1, 1, 1, 4)
    assert composite_product(generated, product, core, mask, alpha)[0, 0, 0].tolist() == [1, 0.5, 0.25, 0]
    shifted = composite_product(generated, product, core, mask, alpha, torch.full((1, 1, 1, 4), 2.0))[0, 0, 0]
    assert shifted[0] == 1
    assert shifted[1] > 0.5
    assert shifted[3] == 0


def test_no_blend_lays_the_image_over_what_is_generated():
    generated, product = torch.zeros(1, 3, 1, 4), torch.ones(1, 3, 1, 4)
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    alpha = torch.tensor([1.0, 0.015, 0.04, 0.5]).view(1, 1, 1, 4)
    composite = composite_product(
        generated, product, mask > 0.5, mask, alpha, bound_shift(torch.full((1, 1, 1, 4), 1e4))
    )[0, 0, 0]
    assert composite[0] == 1
    assert composite[1] == 0
    assert composite[2] < 0.25
    assert composite[3] < 0.9


def test_what_the_decoder_asks_for_is_bounded():
    vae = build_vae(PIXEL, sample_size=32).eval()
    decoder = ConditionalDecoder.from_vae(vae, _spec(PIXEL)).eval()
    torch.nn.init.constant_(decoder.blend[0].bias, 50.0)
    images, mask, alpha = _known(1)
    latents = vae.encode(bytes_to_tensor(images)).latent_dist.mode()
    _, shift = decoder.decode(latents, decoder.encode_condition(bytes_to_tensor(images), mask, alpha))
    assert shift.min() > 0.9 * MAX_SHIFT
    assert shift.max() <= MAX_SHIFT


def test_seam_gradient_sees_a_seam():
    images, mask, _ = _known(1)
    smooth = torch.nn.functional.avg_pool2d(bytes_to_tensor(images), 9, stride=1, padding=4, count_include_pad=False)
    pasted = torch.where(mask > 0.5, smooth + 0.8, smooth)
    assert compute_seam_gradient(pasted, mask, 2) > 3 * compute_seam_gradient(smooth, mask, 2)
    assert compute_seam_gradient(smooth, torch.ones_like(mask), 2).isnan()
