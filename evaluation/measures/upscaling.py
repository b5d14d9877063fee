"""What the upscaler is worth: held-out images enlarged by it, beside a cubic filter."""

from __future__ import annotations

import torch
from torch import nn

from canvas.features.imagenet import MEAN, STD, Trunk, load_pretrained_trunk
from canvas.features.perceptual import Distance, FeatureDistance
from canvas.pins.images import bytes_to_tensor
from canvas.upscaler.examples import Examples
from canvas.upscaler.loading import AnyUpscaler
from canvas.upscaler.spec import FACTORS
from canvas.upscaler.training import enlarge_with_baseline
from evaluation.measures.reconstructions import PIXEL_RANGE
from evaluation.statistics.intervals import compute_mean_metrics

LAYERS = 3
"""Feature maps that are compared: those at strides 2, 4 and 8, where sharpness shows."""


class ImagenetMaps(nn.Module):
    """Feature maps of the package's EfficientNet-Lite0 (canvas.features.imagenet), which the upscaler never learns
    from, of images (B, 3, H, W) in [-1, 1], both sides multiples of 32."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.trunk.pyramid(((images + 1) / 2 - MEAN) / STD)[:LAYERS]


def load_sharpness_distance() -> FeatureDistance:
    """Load the distance by which enlarged images are compared: as LPIPS without its heads."""
    return FeatureDistance(ImagenetMaps(load_pretrained_trunk()))


def background_psnr(images: torch.Tensor, targets: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, (B,), over the pixels with alpha (B, 1, H, W) below one half."""
    outside = (alpha < 0.5).to(images.dtype)
    error = ((images - targets).square().mean(dim=1, keepdim=True) * outside).flatten(1).sum(dim=1)
    return 10 * torch.log10(PIXEL_RANGE**2 / (error / outside.flatten(1).sum(dim=1)))


@torch.no_grad()
def score_upscaler(upscaler: AnyUpscaler, examples: Examples, distance: Distance) -> dict[str, dict[str, float]]:
    """Score held-out images at each factor, with 95 % intervals over images.

    Returns:
        Under "x2" and "x4": `psnr_db` of backgrounds and `perceptual_distance` of whole images, both also `_cubic`;
        `psnr_db_gain`, the difference image by image; `perceptual_cut`, the share of the cubic filter's distance that
        is gone. Above 0 the upscaler is better.
    """
    large = examples.large
    figures: dict[str, dict[str, float]] = {}
    for factor in FACTORS:
        values: dict[str, list[float]] = {}
        for index in range(len(large)):
            targets, alpha = bytes_to_tensor(large.images[index : index + 1]), large.alphas[index : index + 1] / 255
            scores = []
            for pixels in enlarge_with_baseline(upscaler, examples, factor, index):
                image = bytes_to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None])
                scores.append((background_psnr(image, targets, alpha).item(), distance(image, targets).item()))
            (psnr_db, perceptual), (psnr_db_cubic, cubic) = scores
            for name, value in {
                "psnr_db": psnr_db,
                "psnr_db_cubic": psnr_db_cubic,
                "psnr_db_gain": psnr_db - psnr_db_cubic,
                "perceptual_distance": perceptual,
                "perceptual_distance_cubic": cubic,
                "perceptual_cut": 1 - perceptual / cubic,
            }.items():
                values.setdefault(name, []).append(value)
        figures[f"x{factor}"] = {"images": len(large)}
        for name, scored in values.items():
            figures[f"x{factor}"] |= compute_mean_metrics(name, scored)
    return figures
