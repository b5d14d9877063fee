"""What a shadow is learnt from: pins of which truth knows the shadow that the renderer cast.

The background that the network sees is the one before that. Every draw is a function of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from canvas.light.gain import GRID
from canvas.light.model import scale_box, stack_layers
from canvas.light.shadow.model import ShadowModel, build_shadow, choose_window, crop_window, shift_box
from canvas.light.shadow.spec import ShadowSpec
from canvas.light.training import remove_gain
from canvas.pins import tables
from canvas.pins.images import Pixels, composite_on_white, decode_image
from canvas.pins.masks import Alpha, Box, compute_box, decode_alpha
from canvas.train.data import TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import fit
from canvas.train.spec import TrainSpec


class ShadowBatch(TypedDict):
    """B pins."""

    pin_id: list[str]
    layers: torch.Tensor  # (B, 7, S, S) uint8, as the network sees them, before any shadow
    boxes: torch.Tensor  # (B, 4) of the products, in fractions of the window
    opacities: torch.Tensor  # (B, S, S) uint8, true ones in parts of 255


@dataclass(frozen=True, slots=True)
class ShadowedPin:
    """A pin whose shadow is known."""

    pin_id: str
    product: Pixels  # [H, W, 3] as it was before the scene lit it; beyond the product whatever the pin shows
    alpha: Alpha
    box: Box  # of the product
    background: Pixels  # [H, W, 3] before product and shadow came in
    opacity: NDArray[np.float32]  # [H, W] of the shadow


def iterate_shadowed_pins(pins: Path, truth: Path, pin_ids: Collection[str]) -> Iterator[ShadowedPin]:
    """Yield those of `pin_ids` whose light and shadow truth knows, in the order of the table."""
    columns = ["alpha", "box", "log_gain", "background", "shadow"]
    truth_rows = {row["pin_id"]: row for row in tables.iterate_rows(truth, columns, pin_ids) if row["shadow"]}
    for row in tables.iterate_rows(pins, ["image"], truth_rows):
        truth_row = truth_rows[row["pin_id"]]
        left, top, right, bottom = truth_row["box"]
        box, alpha = (left, top, right, bottom), decode_alpha(truth_row["alpha"])
        product = np.array(composite_on_white(decode_image(row["image"])))
        window = compute_box(alpha > 0)
        part, gain = crop_window(window), np.array(truth_row["log_gain"], np.float64).reshape(GRID, GRID, 3)
        product[part] = remove_gain(product[part], gain, shift_box(box, window), alpha[part])
        background = np.asarray(composite_on_white(decode_image(truth_row["background"])))
        yield ShadowedPin(row["pin_id"], product, alpha, box, background, decode_alpha(truth_row["shadow"]))


def stack_shadows(pins: Iterable[ShadowedPin], side: int) -> ShadowBatch:
    """Return the windows of all pins as one batch, empty where there is none; of a pin 8 * side**2 bytes stay."""
    ids, layers, boxes, opacities = [], [], [], []
    for pin in pins:
        height, width = pin.alpha.shape
        window = choose_window(pin.box, width, height)
        part = crop_window(window)
        ids.append(pin.pin_id)
        layers.append(stack_layers(pin.product[part], pin.alpha[part], pin.background[part], side))
        boxes.append(scale_box(shift_box(pin.box, window), window[2] - window[0], window[3] - window[1]))
        opacities.append(shrink_opacity(pin.opacity[part], side))
    return {
        "pin_id": ids,
        "layers": torch.from_numpy(np.array(layers, np.uint8)),
        "boxes": torch.from_numpy(np.array(boxes, np.float32)),
        "opacities": torch.from_numpy(np.array(opacities, np.uint8)),
    }


def shrink_opacity(opacity: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Return an opacity [h, w] of a window as a map's levels [side, side]."""
    method = cv2.INTER_AREA if opacity.size > side * side else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(opacity), (side, side), interpolation=method)
    return np.asarray(np.rint(np.clip(small, 0, 1) * 255), np.uint8)


def fit_shadow(
    network: ShadowSpec,
    batch: ShadowBatch,
    colour: float,
    spec: TrainSpec,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> ShadowModel:
    """Return the network trained on the pins of `batch`, in eval mode.

    Args:
        network: What it is.
        batch: All pins.
        colour: As of `ShadowObjective`.
        spec: Of the training loop.
        checkpoints: Folder of an unfinished run's.
        log: As the loop takes it; names get "shadow_" before them.
    """
    torch.manual_seed(spec.seed)
    model = build_shadow(network)

    def log_shadow(values: Mapping[str, float], step: int) -> None:
        log({f"shadow_{name}": value for name, value in values.items()}, step)

    batches = TensorBatches(batch, spec.batch_size, spec.seed)
    fit(model, ShadowObjective(colour), batches, spec, checkpoints=checkpoints, log=log_shadow)
    model.eval()
    return model


@dataclass(frozen=True, slots=True)
class ShadowObjective:
    """Objective of the training loop: squared error of the opacity, where background shows."""

    colour: float  # largest change of each channel of the product

    def __call__(
        self, model: ShadowModel, batch: ShadowBatch, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        layers, boxes, opacities = mirror_batch(batch, draws)
        samples = len(layers)
        change = 1 + self.colour * (2 * draws.uniform(samples, 3, 1, 1) - 1)
        product = torch.minimum(layers[:, :3] * change, layers[:, 3:4])
        predicted = model(torch.cat([product, layers[:, 3:]], dim=1), boxes)
        shows = 1 - layers[:, 3]
        loss = ((predicted - opacities) ** 2 * shows).mean()
        return loss, {"unshadowed_loss": (opacities**2 * shows).mean()}


def mirror_batch(batch: ShadowBatch, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return layers and opacities in 0..1, and boxes, half of them mirrored."""
    mirrored = draws.uniform(len(batch["layers"])) < 0.5
    layers, boxes = batch["layers"].float() / 255, batch["boxes"]
    opacities = batch["opacities"].float() / 255
    flipped = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)
    return (
        torch.where(mirrored[:, None, None, None], layers.flip(3), layers),
        torch.where(mirrored[:, None], flipped, boxes),
        torch.where(mirrored[:, None, None], opacities.flip(2), opacities),
    )
