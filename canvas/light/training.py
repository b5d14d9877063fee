"""What the light is learnt from: pins of which truth knows the gain that the scene gave their product.

The product without that light is the pin's divided by the gain. Every draw is a function of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canvas.light.gain import GRID, GainGrid, interpolate_grid, linear_to_srgb, srgb_to_linear
from canvas.light.model import LightModel, scale_box, stack_layers
from canvas.pins import tables
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.pins.masks import Alpha, Box, decode_alpha
from canvas.train.draws import Draws


class LightBatch(TypedDict):
    """B pins."""

    pin_id: list[str]
    layers: torch.Tensor  # (B, 7, S, S) uint8, as the network sees them
    boxes: torch.Tensor  # (B, 4) of the products, in fractions
    gains: torch.Tensor  # (B, G, G, 3) true log gains
    weights: torch.Tensor  # (B, G, G, 1) how much of the product is at each node; they sum to 1


@dataclass(frozen=True, slots=True)
class LitPin:
    """A pin whose light is known."""

    pin_id: str
    pixels: Pixels  # [H, W, 3] as the pin shows it
    unlit: Pixels  # the same with the product as it was before the scene lit it
    alpha: Alpha
    box: Box
    log_gain: GainGrid


def iterate_lit_pins(pins: Path, truth: Path, pin_ids: Collection[str]) -> Iterator[LitPin]:
    """Yield those of `pin_ids` whose light truth knows, in the order of the table."""
    columns = ["alpha", "box", "log_gain"]
    truth_rows = {row["pin_id"]: row for row in tables.iterate_rows(truth, columns, pin_ids) if row["log_gain"]}
    for row in tables.iterate_rows(pins, ["image"], truth_rows):
        truth_row = truth_rows[row["pin_id"]]
        pixels = np.asarray(composite_on_white(decode_image(row["image"])))
        gain = np.array(truth_row["log_gain"], np.float64).reshape(GRID, GRID, 3)
        left, top, right, bottom = truth_row["box"]
        alpha = decode_alpha(truth_row["alpha"])
        unlit = remove_gain(pixels, gain, (left, top, right, bottom), alpha)
        yield LitPin(row["pin_id"], pixels, unlit, alpha, (left, top, right, bottom), gain)


def remove_gain(pixels: Pixels, grid: GainGrid, box: Box, alpha: Alpha) -> Pixels:
    """Return pixels [H, W, 3] divided by a gain in linear light, where there is product."""
    window = (0, 0, pixels.shape[1], pixels.shape[0])
    linear = srgb_to_linear(pixels / np.float32(255)) * np.exp(-interpolate_grid(grid, box, window))
    unlit = np.rint(linear_to_srgb(np.minimum(linear, 1)) * 255).astype(np.uint8)
    return np.where(alpha[..., None] > 0, unlit, pixels)


def stack_pins(lit: Iterable[LitPin], side: int) -> LightBatch:
    """Return all pins as one batch, empty where there is none; of a pin 7 * side**2 bytes stay."""
    ids, layers, boxes, gains, weights = [], [], [], [], []
    for pin in lit:
        ids.append(pin.pin_id)
        layers.append(stack_layers(pin.unlit, pin.alpha, pin.pixels, side))
        boxes.append(scale_box(pin.box, pin.alpha.shape[1], pin.alpha.shape[0]))
        gains.append(pin.log_gain)
        weights.append(_weigh_nodes(pin.alpha, pin.box))
    return {
        "pin_id": ids,
        "layers": torch.from_numpy(np.array(layers, np.uint8)),
        "boxes": torch.from_numpy(np.array(boxes, np.float32)),
        "gains": torch.from_numpy(np.array(gains, np.float32)),
        "weights": torch.from_numpy(np.array(weights, np.float32)),
    }


def _weigh_nodes(alpha: Alpha, box: Box) -> NDArray[np.float32]:
    left, top, right, bottom = box
    inside = np.ascontiguousarray(alpha[top:bottom, left:right])
    share = cv2.resize(inside, (GRID, GRID), interpolation=cv2.INTER_AREA) + 1e-6
    return np.asarray((share / share.sum())[..., None], np.float32)


@dataclass(frozen=True, slots=True)
class LightObjective:
    """Objective of the training loop: squared error of the log gain, over the product."""

    colour: float  # largest change of each channel of the product

    def __call__(
        self, model: LightModel, batch: LightBatch, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        layers, boxes, gains, weights = mirror_batch(batch, draws)
        change = 1 + self.colour * (2 * draws.uniform(len(layers), 3, 1, 1) - 1)
        product = torch.minimum(layers[:, :3] * change, layers[:, 3:4])
        predicted = model(torch.cat([product, layers[:, 3:]], dim=1), boxes)
        loss = ((predicted - gains) ** 2 * weights).sum((1, 2)).mean()
        return loss, {"unlit_loss": (gains**2 * weights).sum((1, 2)).mean()}


def mirror_batch(batch: LightBatch, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return layers in 0..1, boxes, gains and weights, half of the pins mirrored."""
    mirrored = draws.uniform(len(batch["layers"])) < 0.5
    layers, boxes = batch["layers"].float() / 255, batch["boxes"]
    flipped = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)
    by_image = mirrored[:, None, None, None]
    return (
        torch.where(by_image, layers.flip(3), layers),
        torch.where(mirrored[:, None], flipped, boxes),
        torch.where(by_image, batch["gains"].flip(2), batch["gains"]),
        torch.where(by_image, batch["weights"].flip(2), batch["weights"]),
    )
