"""Image features that judges see by: a network learnt on ImageNet that no loss of the generator may use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from canvas.features.imagenet import Trunk

SIDE = 224
"""Of the square that the network sees, as it was trained."""

SCENE_SIDE = 160
"""The same where it judges scenes: pictures of 64 pixels are all blur to it when they are enlarged more."""

MAX_VIEW_SIDE = 256
"""Of the squares that judges are given: they and the text-image encoders resize to 224 or less."""


def choose_view_side(side: int) -> int:
    """Pixels of the squares that judges are given of pictures in frames of `side`."""
    return min(side, MAX_VIEW_SIDE)


def extract_trunk_features(images: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
    """What pictures [N, H, W, 3] of one size show, float32 [N, 1280]: what sets of pictures are compared by."""
    found = [np.zeros((0, 1280), np.float32)]
    for seen in _iterate_batches(images, SIDE, batch_size):
        found.append(_load_trunk()(pixel_values=seen).last_hidden_state[:, 0].cpu().numpy())
    return np.concatenate(found)


def extract_scene_features(images: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
    """What the scenes in pictures [N, H, W, 3] of one size are told by, float32 [N, 864]: mean and deviation of the
    last maps at strides 16 and 32, for textures more than things tell them apart."""
    from canvas.features.imagenet import WIDTHS

    found = [np.zeros((0, 2 * sum(WIDTHS[-2:])), np.float32)]
    for seen in _iterate_batches(images, SCENE_SIDE, batch_size):
        maps = _load_trunk().pyramid(seen)[-2:]
        told = [of((2, 3)).cpu().numpy() for each in maps for of in (each.mean, each.std)]
        found.append(np.concatenate(told, axis=1))
    return np.concatenate(found)


def extract_trunk_maps(images: torch.Tensor) -> list[torch.Tensor]:
    """Feature maps at strides 2 to 32 of pictures (B, 3, S, S) in [-1, 1], S a multiple of 32: what
    canvas.features.perceptual.FeatureDistance compares. On the judge's device."""
    return _load_trunk().pyramid(_normalize_pixels((images.to(_load_trunk().device) + 1) / 2))


@cache
def _load_trunk() -> Trunk:
    """Loaded once a process: it never changes."""
    from canvas.device import default_device
    from canvas.features.imagenet import load_pretrained_trunk

    return load_pretrained_trunk().eval().to(default_device())


def _iterate_batches(images: NDArray[np.uint8], side: int, size: int) -> Iterator[torch.Tensor]:
    """As the network sees them: (B, 3, side, side)."""
    import torch
    from torch.nn import functional as F

    for first in range(0, len(images), size):
        pixels = (
            torch.from_numpy(images[first : first + size]).to(_load_trunk().device).permute(0, 3, 1, 2).float() / 255
        )
        yield _normalize_pixels(F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1))


def _normalize_pixels(pixels: torch.Tensor) -> torch.Tensor:
    from canvas.features.imagenet import MEAN, STD

    return (pixels - MEAN) / STD
