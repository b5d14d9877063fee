"""What the segmenter is trained on: true opacity, on pins as they are and on their products pasted elsewhere.

Pasting (Ghiasi et al. 2021, "Simple Copy-Paste") breaks the tie between products and their scenes; B images of S x S.
Every draw is a function of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.pins.masks import decode_alpha
from canvas.segmenter.model import make_square_tensor
from canvas.segmenter.spec import AugmentSpec
from canvas.train.data import select_batch_rows
from canvas.train.draws import Draws
from canvas.train.spec import TrainSpec


class SegmentationBatch(TypedDict):
    """B pins, each with a scene to paste its product into: whole images as squares, uint8."""

    pin_id: list[str]
    pixels: torch.Tensor  # [B, 3, S, S] RGB
    alpha: torch.Tensor  # [B, 1, S, S] opacity of the product; 0 where there is none
    scene: torch.Tensor  # [B, 3, S, S] RGB


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyPasteBatches:
    """Batches of pins in memory, N of them, with M scenes without a product, each shuffled by itself."""

    pin_id: list[str]
    pixels: torch.Tensor  # [N, 3, S, S]
    alpha: torch.Tensor  # [N, 1, S, S]
    scenes: torch.Tensor  # [M, 3, S, S]
    batch_size: int
    seed: int

    def __call__(self, step: int, rank: int, world: int) -> SegmentationBatch:
        rows, scenes = (
            torch.from_numpy(select_batch_rows(count, self.batch_size, seed, step, rank, world))
            for count, seed in ((len(self.pin_id), self.seed), (len(self.scenes), self.seed + 1))
        )
        return {
            "pin_id": [self.pin_id[row] for row in rows],
            "pixels": self.pixels[rows],
            "alpha": self.alpha[rows],
            "scene": self.scenes[scenes],
        }


def load_copy_paste_batches(
    pins: Path, truth: Path, pin_ids: Collection[str], side: int, spec: TrainSpec
) -> CopyPasteBatches:
    """Load those of `pin_ids` that truth knows into memory, 4 * side**2 bytes a pin and 3 * side**2 a scene; ValueError
    if there is none with a product, or none without."""
    alphas: dict[str, torch.Tensor] = {}
    scenes: list[torch.Tensor] = []
    for row in tables.iterate_rows(truth, ["alpha", "background"], pin_ids):
        alphas[row["pin_id"]] = _decode_square_alpha(row["alpha"], side)
        if row["background"] is not None:
            scenes.append(make_square_tensor(decode_image(row["background"]), side))
    ids, pixels = [], []
    for row in tables.iterate_rows(pins, ["image"], alphas):
        ids.append(row["pin_id"])
        pixels.append(make_square_tensor(decode_image(row["image"]), side))
        if not alphas[row["pin_id"]].any():
            scenes.append(pixels[-1])
    if not scenes or not any(alphas[pin_id].any() for pin_id in ids):
        raise ValueError(
            f"{truth} knows the true product of none of the {len(pin_ids)} pins to train on: name a segmenter in "
            "train_segmenter.init_from and set train_segmenter.train to null"
        )
    return CopyPasteBatches(
        pin_id=ids,
        pixels=torch.stack(pixels),
        alpha=torch.stack([alphas[pin_id] for pin_id in ids]),
        scenes=torch.stack(scenes),
        batch_size=spec.batch_size,
        seed=spec.seed,
    )


def _decode_square_alpha(png: bytes | None, side: int) -> torch.Tensor:
    if png is None:
        return torch.zeros(1, side, side, dtype=torch.uint8)
    alpha = Image.fromarray((decode_alpha(png) * 255).round().astype("uint8"))
    return make_square_tensor(alpha, side)[:1]


def segmentation_loss(logits: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy with soft targets + (1 - soft Dice) of each image (Milletari et al. 2016), a batch's mean.

    logits, alpha [B, 1, S, S]; Dice counts one pixel more in both sums, so that an empty image asks for no product.
    """
    probability = logits.sigmoid()
    overlap = 2 * (probability * alpha).sum((1, 2, 3)) + 1
    dice = overlap / ((probability + alpha).sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, alpha) + (1 - dice).mean()


@dataclass(frozen=True, slots=True)
class SegmentationObjective:
    """Objective of the training loop."""

    augment: AugmentSpec

    def __call__(
        self, model: nn.Module, batch: SegmentationBatch, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pixels, alpha = augment_batch(batch, draws, self.augment)
        logits = model(pixels)
        with torch.no_grad():
            predicted, true = logits > 0, alpha > 0.5
            has_product = true.flatten(1).any(1)
            iou = (predicted & true).flatten(1).sum(1) / (predicted | true).flatten(1).sum(1).clamp(min=1)
            mean = iou[has_product].mean() if has_product.any() else iou.new_zeros(())
        return segmentation_loss(logits, alpha), {"iou": mean}


@torch.no_grad()
def augment_batch(batch: SegmentationBatch, draws: Draws, spec: AugmentSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images in 0..1 [B, 3, S, S] and their true alpha [B, 1, S, S]."""
    pixels, alpha, scene = (column.float() / 255 for column in (batch["pixels"], batch["alpha"], batch["scene"]))
    layers = torch.cat([pixels, alpha], dim=1)
    rows = len(layers)

    pasted = _warp_layers(layers, _sample_transforms(draws, rows, spec, spec.turn), "zeros")
    product, opacity = pasted[:, :3], pasted[:, 3:]
    product = _jitter_color(product, draws, spec.colour)
    below = _jitter_color(scene, draws, spec.colour) * (1 - _sample_shadow(opacity, draws))
    composite = torch.cat([product * opacity + below * (1 - opacity), opacity], dim=1)

    paste = (draws.uniform(rows, 1, 1, 1) < spec.paste).to(layers.dtype)
    layers = paste * composite + (1 - paste) * layers
    layers = _warp_layers(layers, _sample_transforms(draws, rows, spec, 0.0), "reflection")
    return _jitter_color(layers[:, :3], draws, spec.colour), layers[:, 3:]


def _sample_transforms(draws: Draws, rows: int, spec: AugmentSpec, turn: float) -> torch.Tensor:
    """Sample affine maps [B, 2, 3] from output to input: mirrored half of the time, scaled, moved, turned."""
    draw = 2 * draws.uniform(rows, 5) - 1
    scale = spec.zoom ** draw[:, 0]
    angle = torch.deg2rad(turn * draw[:, 1])
    mirror = draw[:, 2].sign()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 2 * spec.shift * draw[:, 3:]
    return torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )


def _warp_layers(layers: torch.Tensor, transforms: torch.Tensor, padding: str) -> torch.Tensor:
    grid = F.affine_grid(transforms, list(layers.shape), align_corners=False)
    return F.grid_sample(layers, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _jitter_color(pixels: torch.Tensor, draws: Draws, strength: float) -> torch.Tensor:
    """Vary contrast about the mean, gain of each channel and brightness, each by up to `strength`, clipped to 0..1."""
    draw = strength * (2 * draws.uniform(len(pixels), 5, 1, 1) - 1)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (((pixels - mean) * (1 + draw[:, :1]) + mean) * (1 + draw[:, 1:4]) + draw[:, 4:] / 3).clamp(0, 1)


def _sample_shadow(opacity: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Sample the darkness [B, 1, S, S] of a soft shadow beside the pasted product, 0..0.6."""
    rows, side = len(opacity), opacity.shape[-1]
    width = max(1, side // 24)
    soft = opacity[:, 0]
    for _ in range(4):  # a box along each axis, twice; one axis at a time is a quarter of the time on a CPU
        soft = F.avg_pool1d(soft, 2 * width + 1, 1, width).mT
    draw = draws.uniform(rows, 3)
    moves = torch.eye(2, 3, device=opacity.device).repeat(rows, 1, 1)
    moves[:, :, 2] = 0.2 * (draw[:, :2] - 0.5)
    return 0.6 * draw[:, 2].view(rows, 1, 1, 1) * _warp_layers(soft[:, None], moves, "zeros")
