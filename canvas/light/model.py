"""The network that sees a product before a scene and predicts the gain that the scene's light would give it.

Shapes: B images, S the side that the network sees, G = GRID nodes a side of the grid over the product's box.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.light.gain import GRID, FloatPixels
from canvas.light.spec import LightSpec
from canvas.loading import load_stage_model
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Box, compute_box

INPUT_CHANNELS = 7  # product, its alpha, scene
AMBIENT_FLOOR = 1e-2  # of the scene's mean light, before its logarithm


class LightModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A convolutional network that answers for each node of the grid.

    A node reads the features at its place, those of the whole image, the logarithm of the scene's mean light, and where
    in the product's box it is. A new model answers 0: no gain.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, image_size: int, channels: tuple[int, int, int, int], hidden: int) -> None:
        super().__init__()
        widths = [INPUT_CHANNELS, *channels]
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GroupNorm(1, outer), nn.SiLU())
            for inner, outer in pairwise(widths)
        )
        first, last = nn.Linear(2 * channels[-1] + 3 + 2, hidden), nn.Linear(hidden, 3)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(first, nn.SiLU(), last)

    def forward(self, layers: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Return log gains (B, G, G, 3).

        Args:
            layers: (B, 7, S, S) in 0..1: product times alpha, alpha, scene times 1 - alpha; sRGB.
            boxes: (B, 4): x0, y0, x1, y1 of the product in fractions of width and height.
        """
        features = layers * 2 - 1
        for block in self.body:
            features = block(features)
        steps = torch.linspace(0, 1, GRID, device=layers.device, dtype=layers.dtype)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)  # (G, G, 2): x, y within the box
        start, size = boxes[:, None, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None, None]
        nodes = (start + places * size) * 2 - 1
        local = F.grid_sample(features, nodes, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
        shared = torch.cat([features.mean((2, 3)), _measure_ambient(layers)], dim=1)
        whole = shared[:, None, None].expand(-1, GRID, GRID, -1)
        log_gain: torch.Tensor = self.head(torch.cat([local, whole, places.expand(len(layers), -1, -1, -1)], dim=-1))
        return log_gain


def build_light(spec: LightSpec) -> LightModel:
    """Build the network with random weights from torch's generator."""
    return LightModel(spec.image_size, spec.channels, spec.hidden)


def load_light(path: str | Path) -> LightModel:
    """Load the network that the stage `train_light` saved, in eval mode; ValueError if there is none."""
    return load_stage_model(LightModel, path, "train_light")


@torch.no_grad()
def predict_gain(model: LightModel, pixels: Pixels, alpha: Alpha, scene: Pixels) -> NDArray[np.float32]:
    """Return the log gain [G, G, 3] of a product [H, W, 3] with `alpha` [H, W] before a scene [H, W, 3], over the box
    of the core. It need not be lawful."""
    layers = torch.from_numpy(stack_layers(pixels, alpha, scene, model.config["image_size"]))[None]
    box = torch.tensor(scale_box(compute_box(alpha == 1), alpha.shape[1], alpha.shape[0]))
    grids = model(layers.to(model.device, model.dtype) / 255, box[None].to(model.device, model.dtype))
    return np.asarray(grids[0].float().cpu().numpy())


def stack_layers(pixels: Pixels, alpha: Alpha, scene: Pixels, side: int) -> NDArray[np.uint8]:
    """Return what the network sees, uint8 [7, S, S]: product times alpha, alpha, scene times 1 - alpha."""
    background = 1 - alpha
    method = cv2.INTER_AREA if alpha.size > side * side else cv2.INTER_LINEAR

    def shrink(plane: FloatPixels) -> FloatPixels:  # one at a time: images may be large
        return np.asarray(cv2.resize(np.ascontiguousarray(plane, np.float32), (side, side), interpolation=method))

    planes = [shrink(pixels[..., channel] * alpha) for channel in range(3)]
    planes += [shrink(255 * alpha), *(shrink(scene[..., channel] * background) for channel in range(3))]
    return np.clip(np.rint(np.stack(planes)), 0, 255).astype(np.uint8)


def scale_box(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """Return the box in fractions of width and height."""
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def _measure_ambient(layers: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean light (B, 3) of what is seen of the scene."""
    seen = 1 - layers[:, 3:4]
    colours = layers[:, 4:] / seen.clamp(min=1e-2)
    light = (colours.clamp(0, 1) ** 2.2 * seen).sum((2, 3)) / seen.sum((2, 3)).clamp(min=1e-2)
    return (light + AMBIENT_FLOOR).log()
