"""Image features of the judges: a network trained on ImageNet that no loss of the generator may use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from canvas.features.imagenet import Trunk
    from canvas.pins.scene_views import Views

SIDE = 224  # pixels of the network's square input, as it was trained
SCENE_SIDE = 160  # the same for scenes: images of 64 pixels, enlarged more, are all blur to the network

MAX_VIEW_SIDE = 256
"""Pixels of the squares that judges are given: they and the text-image encoders resize to 224 or less."""


def choose_view_side(side: int) -> int:
    """Return the pixels of the squares that judges are given of images in frames of `side`."""
    return min(side, MAX_VIEW_SIDE)


def extract_trunk_features(images: Views, batch_size: int = 64) -> NDArray[np.float32]:
    """Return features float32 [N, 1280] of images [N, H, W, 3], by which sets of images are compared."""
    features = [np.zeros((0, 1280), np.float32)]
    for pixels in _iterate_batches(images, SIDE, batch_size):
        features.append(_load_trunk()(pixel_values=pixels).last_hidden_state[:, 0].cpu().numpy())
    return np.concatenate(features)


def extract_scene_features(images: Views, batch_size: int = 64) -> NDArray[np.float32]:
    """Return features float32 [N, 864] of images [N, H, W, 3], by which scenes are recognized.

    They are mean and deviation of the last maps at strides 16 and 32: textures tell scenes apart more than objects do.
    """
    from canvas.features.imagenet import WIDTHS

    features = [np.zeros((0, 2 * sum(WIDTHS[-2:])), np.float32)]
    for pixels in _iterate_batches(images, SCENE_SIDE, batch_size):
        maps = _load_trunk().pyramid(pixels)[-2:]
        statistics = [reduce((2, 3)).cpu().numpy() for level in maps for reduce in (level.mean, level.std)]
        features.append(np.concatenate(statistics, axis=1))
    return np.concatenate(features)


def extract_defect_maps(images: Views, batch_size: int = 64) -> NDArray[np.float16]:
    """Return feature maps float16 [N, 232, 20, 20] of images [N, H, W, 3], in which defects are seen.

    They are the maps at strides 2 to 16 on the grid of stride 8, finer ones by mean and largest value: a defect is
    small, and stands out.
    """
    import torch
    from torch.nn import functional as F

    grid, parts = SCENE_SIDE // 8, []
    for pixels in _iterate_batches(images, SCENE_SIDE, batch_size):
        *finer, same, coarser = _load_trunk().pyramid(pixels)[:4]
        pooled = [pool(level, level.shape[-1] // grid) for level in finer for pool in (F.avg_pool2d, F.max_pool2d)]
        maps = [*pooled, same, F.interpolate(coarser, size=(grid, grid), mode="bilinear")]
        parts.append(torch.cat(maps, dim=1).half().cpu().numpy())
    return np.concatenate(parts)


def extract_trunk_maps(images: torch.Tensor) -> list[torch.Tensor]:
    """Return feature maps at strides 2 to 32 of images (B, 3, S, S) in [-1, 1], S a multiple of 32.

    They lie on the judges' device; canvas.features.perceptual.FeatureDistance compares them.
    """
    return _load_trunk().pyramid(_normalize_pixels((images.to(_load_trunk().device) + 1) / 2))


@cache
def _load_trunk() -> Trunk:
    from canvas.device import default_device
    from canvas.features.imagenet import load_pretrained_trunk

    return load_pretrained_trunk().eval().to(default_device())


def _iterate_batches(images: Views, side: int, size: int) -> Iterator[torch.Tensor]:
    """Yield the network's inputs (B, 3, side, side)."""
    import torch
    from torch.nn import functional as F

    for first in range(0, len(images), size):
        batch = torch.from_numpy(images[first : first + size]).to(_load_trunk().device)
        pixels = batch.permute(0, 3, 1, 2).float() / 255
        yield _normalize_pixels(F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1))


def _normalize_pixels(pixels: torch.Tensor) -> torch.Tensor:
    from canvas.features.imagenet import MEAN, STD

    return (pixels - MEAN) / STD
