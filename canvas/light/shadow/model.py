"""The network that sees a product before a scene and predicts the shadow that it would cast there.

Shapes: B images, S the side of the square that a window round the product becomes, and of the map.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.light.model import INPUT_CHANNELS, scale_box, stack_layers
from canvas.light.shadow.casting import MAX_OPACITY, ShadowMap
from canvas.light.shadow.presence import measure_presence
from canvas.light.shadow.spec import ShadowSpec
from canvas.loading import load_stage_model
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Box, compute_box

FOLDER = "shadow"
"""Where the network lies in the folder of the light network."""

TALL, WIDE = 2.0, 1.6
"""Side of a window over the height and over the width of its product's box, whichever is more: about as large as
products are in the pins that the network learnt from, whatever their size is."""
GROUND = 0.2
"""Share of the window below the product's base, where it has room."""
FAR = 3.0
"""Where a place stops to count, in halves of the box's width or heights of it."""
FADE = 4
"""Nodes over which the shadow falls to 0 at a side beyond which the image goes on."""
FAINT = -4.0
"""Logit of a new network: next to no shadow."""


class ShadowModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A U-Net (Ronneberger et al. 2015) that answers with an opacity for each node of the map.

    It sees where each node is from the product's box. Its decoder ends at stride 2, whose every pixel holds four nodes
    (Shi et al. 2016).
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, image_size: int, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        widths = [INPUT_CHANNELS + 2, *channels]
        self.down = nn.ModuleList(_build_block(inner, outer, stride=2) for inner, outer in pairwise(widths))
        self.up = nn.ModuleList(
            _build_block(deeper + outer, outer, stride=1) for outer, deeper in reversed(list(pairwise(channels)))
        )
        self.whole = nn.Linear(channels[-1], channels[-1])
        self.head = nn.Conv2d(channels[0], 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.get_parameter("bias"), FAINT)

    def forward(self, layers: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Return opacities (B, S, S), 0 to MAX_OPACITY.

        Args:
            layers: (B, 7, S, S) in 0..1: product times alpha, alpha, scene times 1 - alpha; sRGB.
            boxes: (B, 4): x0, y0, x1, y1 of the product in fractions of width and height.
        """
        skipped: list[torch.Tensor] = []
        features = torch.cat([layers * 2 - 1, _measure_places(layers, boxes)], dim=1)
        for block in self.down:
            features = block(features)
            skipped.append(features)
        features = features + self.whole(features.mean((2, 3)))[..., None, None]
        for block, skip in zip(self.up, reversed(skipped[:-1]), strict=True):
            features = block(torch.cat([F.interpolate(features, scale_factor=2.0), skip], dim=1))
        opacity: torch.Tensor = MAX_OPACITY * torch.sigmoid(F.pixel_shuffle(self.head(features), 2)[:, 0])
        return opacity


def _build_block(inner: int, outer: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=stride, padding=1), nn.GroupNorm(1, outer), nn.SiLU())


def _measure_places(layers: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return where each node is, (B, 2, S, S): from the middle of the product's box in halves of its width, and from
    its base in heights of it."""
    side = layers.shape[-1]
    steps = (torch.arange(side, device=layers.device, dtype=layers.dtype) + 0.5) / side
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    across, down = (2 * steps - x0 - x1) / (x1 - x0), (steps - y1) / (y1 - y0)
    places = torch.stack([across[:, None, :].expand(-1, side, -1), down[:, :, None].expand(-1, -1, side)], dim=1)
    return places.clamp(-FAR, FAR)


def build_shadow(spec: ShadowSpec) -> ShadowModel:
    """Build the network with random weights from torch's generator."""
    return ShadowModel(spec.image_size, spec.channels)


def load_shadow(path: str | Path) -> ShadowModel:
    """Load the network that the stage `train_light` saved in the folder `shadow`, in eval mode; ValueError if there is
    none."""
    return load_stage_model(ShadowModel, path, "train_light")


def choose_window(box: Box, width: int, height: int) -> Box:
    """Return the window round a product's box in an image of width x height: a square, as far as the image reaches."""
    left, top, right, bottom = box
    side = max(1, round(max(TALL * (bottom - top), WIDE * (right - left))))
    wide, tall = min(side, width), min(side, height)
    x = min(max(0, round((left + right - wide) / 2)), width - wide)
    y = min(max(0, round(bottom + GROUND * side) - tall), height - tall)
    return x, y, x + wide, y + tall


def crop_window(window: Box) -> tuple[slice, slice]:
    """Return a window's rows and columns."""
    return slice(window[1], window[3]), slice(window[0], window[2])


def shift_box(box: Box, window: Box) -> Box:
    """Return a box of the image in pixels of a window."""
    return box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1]


@torch.no_grad()
def predict_shadow(model: ShadowModel, pixels: Pixels, alpha: Alpha, scene: Pixels) -> ShadowMap:
    """Return the shadow of a product [H, W, 3] with `alpha` [H, W] before a scene [H, W, 3], less the share of it that
    the scene shows already.

    Raises:
        ValueError: The network gives no finite numbers.
    """
    height, width = alpha.shape
    box = compute_box(alpha >= min(0.5, float(alpha.max())))
    window = choose_window(box, width, height)
    part = crop_window(window)
    layers = stack_layers(pixels[part], alpha[part], scene[part], model.config["image_size"])
    relative_box = scale_box(shift_box(box, window), window[2] - window[0], window[3] - window[1])
    boxes = torch.tensor(relative_box)[None].to(model.device, model.dtype)
    inputs = torch.from_numpy(layers)[None].to(model.device, model.dtype) / 255
    opacity = model(inputs, boxes)[0].float().cpu().numpy()
    if not np.isfinite(opacity).all():
        raise ValueError("the shadow network gave NaN or infinity: its weights are damaged, assemble the model again")
    present = measure_presence(layers, opacity, (relative_box[3] - relative_box[1]) * len(opacity))
    return build_map(opacity * np.float32(1 - present), window, width, height)


def build_map(opacity: NDArray[np.float32], window: Box, width: int, height: int) -> ShadowMap:
    """Return the map of predicted opacities; it fades at sides of its window beyond which the image goes on.

    Args:
        opacity: [S, S]; what is above MAX_OPACITY is drawn to it.
        window: Of the image, pixels.
        width: Of the image.
        height: Likewise.
    """
    places = np.arange(len(opacity), dtype=np.float32) + 0.5

    def fade(starts_inside: bool, ends_inside: bool) -> NDArray[np.float32]:
        start = places / FADE if starts_inside else np.ones_like(places)
        return np.asarray(np.minimum(np.minimum(start, places[::-1] / FADE if ends_inside else 1), 1), np.float32)

    left, top, right, bottom = window
    weight = np.minimum.outer(fade(top > 0, bottom < height), fade(left > 0, right < width))
    levels = np.floor(np.minimum(opacity * weight, MAX_OPACITY) * 255 + 0.5)
    return ShadowMap(np.minimum(levels, np.floor(MAX_OPACITY * 255)).astype(np.uint8), window)
