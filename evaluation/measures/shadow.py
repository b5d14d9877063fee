"""How well a predicted shadow is the one that the renderer truly cast, against no shadow and a fixed drop shadow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.light.shadow.casting import ShadowMap, cast_shadows
from canvas.light.shadow.model import ShadowModel, build_map, choose_window, crop_window, predict_shadow
from canvas.light.shadow.training import ShadowedPin, iterate_shadowed_pins, shrink_opacity
from canvas.pins import tables
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import draw_contact_sheet
from canvas.pins.masks import Alpha, Box, blend_pixels
from evaluation.statistics.intervals import ResampledMean, resample_group_mean

SHADOW = 0.2
"""Opacity from which a pixel lies in a shadow, for the balanced error rate."""
OFFSETS = (-0.02, 0.0, 0.02, 0.05, 0.1)
"""Offsets of a drop shadow to the right and down that are tried, in heights of the product's box."""
BLURS = (0.02, 0.05, 0.1)
"""Standard deviations of its blur that are tried, likewise."""
DROP_PINS = 60
"""Training pins that a drop shadow is fitted to; not all of them have a shadow that truth knows."""
SHEET_CELL = 160

Opacity = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DropShadow:
    """The shadow of every image editor: the product's own shape, moved and blurred."""

    right: float  # heights of the product's box
    down: float
    blur: float
    opacity: float

    def draw(self, alpha: Alpha, box: Box) -> Opacity:
        """Return the opacity [H, W] of the shadow of a product."""
        height = box[3] - box[1]
        matrix = np.array([[1, 0, self.right * height], [0, 1, self.down * height]], np.float64)
        moved = cv2.warpAffine(alpha, matrix, alpha.shape[::-1])
        return np.asarray(self.opacity * cv2.GaussianBlur(moved, (0, 0), self.blur * height + 1e-3), np.float32)


@dataclass(frozen=True, slots=True)
class MeasuredShadows:
    """Figures of a network on held-out pins, and a sheet of some."""

    figures: dict[str, Any]
    sheet: Image.Image


def measure_shadows(
    model: ShadowModel,
    pins: Path,
    truth: Path,
    train_ids: Collection[str],
    held_out: Mapping[str, str],
    sheet_ids: Collection[str],
) -> MeasuredShadows:
    """Score a network on the held-out pins whose shadows truth knows, and draw some of them.

    Args:
        model: The network.
        pins: Table.
        truth: Table.
        train_ids: Pins to DROP_PINS of which the drop shadow is fitted.
        held_out: Pin -> split.
        sheet_ids: Pins on the sheet.
    """
    drop = fit_drop_shadow(list(iterate_shadowed_pins(pins, truth, select_evenly(train_ids, DROP_PINS))))
    product_of = tables.read_column(pins, "product_id", held_out)
    scored = iterate_shadowed_pins(pins, truth, held_out)
    scores = [score_shadow(model, pin, drop, product_of[pin.pin_id] or pin.pin_id) for pin in scored]
    sheet = draw_shadow_sheet(model, iterate_shadowed_pins(pins, truth, sheet_ids), drop)
    figures = {**compute_shadow_metrics(scores, held_out), "drop_shadow": asdict(drop)}
    return MeasuredShadows(figures | {"parameters": model.num_parameters()}, sheet)


def fit_drop_shadow(pins: Sequence[ShadowedPin]) -> DropShadow:
    """Return the drop shadow of least squared error over `pins`, among those of OFFSETS and BLURS; the opacity is the
    best of each (least squares)."""
    best: tuple[float, DropShadow] | None = None
    for right, down, blur in product(OFFSETS, OFFSETS, BLURS):
        squares, products, energy = 0.0, 0.0, 0.0
        for pin in pins:
            shape = DropShadow(right, down, blur, 1.0).draw(pin.alpha, pin.box)
            shows = _weigh_background(pin.alpha)
            squares += float((shows * shape**2).sum())
            products += float((shows * shape * pin.opacity).sum())
            energy += float((shows * pin.opacity**2).sum())
        opacity = max(0.0, products / max(squares, 1e-9))
        error = energy - 2 * opacity * products + opacity**2 * squares
        if best is None or error < best[0]:
            best = error, DropShadow(right, down, blur, opacity)
    assert best is not None
    return best[1]


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """Errors are roots of mean squares of the opacity, over the background of a pin; rates are balanced error rates of
    the shadow's pixels there."""

    pin_id: str
    product_id: str
    error: float  # of the shadow that was predicted before a clean background
    none_error: float  # of no shadow at all
    drop_error: float  # of the fixed drop shadow
    map_error: float  # of the true shadow as a map: no prediction does better
    rate: float
    none_rate: float
    drop_rate: float
    again: float  # mean opacity that is predicted where the background has the shadow already, over the true one


def score_shadow(model: ShadowModel, pin: ShadowedPin, drop: DropShadow, product_id: str) -> ShadowScore:
    """Score what the network predicts for a held-out pin."""
    height, width = pin.alpha.shape
    opacity = _spread(predict_shadow(model, pin.product, pin.alpha, pin.background), pin)
    again = _spread(predict_shadow(model, pin.product, pin.alpha, shade_background(pin)), pin)
    window = choose_window(pin.box, width, height)
    levels = shrink_opacity(pin.opacity[crop_window(window)], model.config["image_size"])
    exact = _spread(build_map(levels.astype(np.float32) / np.float32(255), window, width, height), pin)
    dropped, none = drop.draw(pin.alpha, pin.box), np.zeros_like(opacity)
    shows = _weigh_background(pin.alpha)

    def compute_error(guess: Opacity) -> float:
        return float(np.sqrt((shows * (guess - pin.opacity) ** 2).sum() / shows.sum()))

    true = max(float((shows * pin.opacity).sum()), 1e-9)
    return ShadowScore(
        pin_id=pin.pin_id,
        product_id=product_id,
        error=compute_error(opacity),
        none_error=compute_error(none),
        drop_error=compute_error(dropped),
        map_error=compute_error(exact),
        rate=compute_balanced_error(opacity, pin.opacity, shows),
        none_rate=compute_balanced_error(none, pin.opacity, shows),
        drop_rate=compute_balanced_error(dropped, pin.opacity, shows),
        again=float((shows * again).sum()) / true,
    )


def compute_balanced_error(guess: Opacity, true: Opacity, shows: Opacity) -> float:
    """Return the mean of the shares of the true shadow's and of the other pixels that a guess takes for the other
    (Zheng et al. 2019, BER), of weights `shows`; 0 to 1, 0.5 for no shadow at all."""
    is_shadow, is_guessed = true >= SHADOW, guess >= SHADOW
    shares = [
        float(shows[wrong].sum()) / weight
        for wrong, weight in (
            (is_shadow & ~is_guessed, float(shows[is_shadow].sum())),
            (~is_shadow & is_guessed, float(shows[~is_shadow].sum())),
        )
        if weight > 0
    ]
    return float(np.mean(shares))


def shade_background(pin: ShadowedPin) -> NDArray[np.uint8]:
    """Return the background under its true shadow."""
    return np.asarray(np.rint(pin.background * (1 - pin.opacity[..., None])), np.uint8)


def compute_shadow_metrics(scores: Sequence[ShadowScore], split_of: Mapping[str, str]) -> dict[str, Any]:
    """Return errors and rates of all held-out pins and by split, with intervals by product.

    `error_share_of_none` is the error over that of no shadow, likewise of the drop shadow and of rates.
    """
    values: dict[str, Any] = dict(_compute_means(scores))
    for split in sorted({split_of[score.pin_id] for score in scores}):
        values[split] = _compute_means([score for score in scores if split_of[score.pin_id] == split])
    return values


def _compute_means(scores: Sequence[ShadowScore]) -> dict[str, float]:
    groups = [score.product_id for score in scores]
    values: dict[str, float] = {"pins": len(scores), "products": len(set(groups))}
    means: dict[str, ResampledMean] = {}
    for name in ("error", "none_error", "drop_error", "map_error", "rate", "none_rate", "drop_rate", "again"):
        means[name] = resample_group_mean([getattr(score, name) for score in scores], groups)
        values |= means[name].to_interval().to_metrics(name)
    for name in ("error", "rate"):
        for other in ("none", "drop"):
            rival = means[f"{other}_{name}"]
            if rival.samples.min() > 0:
                values |= means[name].divide_by(rival).to_interval().to_metrics(f"{name}_share_of_{other}")
    return values


def draw_shadow_sheet(model: ShadowModel, pins: Iterable[ShadowedPin], drop: DropShadow) -> Image.Image:
    """Draw held-out pins: without shadow, with the drop shadow, with the predicted one, with the true one."""
    images, labels = [], []
    for pin in pins:
        cutout, alpha, background = pin.product, pin.alpha, pin.background
        predicted = predict_shadow(model, cutout, alpha, background)
        bare = blend_pixels(cutout, alpha, background)
        dropped = np.rint(background * (1 - drop.draw(alpha, pin.box)[..., None])).astype(np.uint8)
        for pixels, label in (
            (bare, "no shadow"),
            (blend_pixels(cutout, alpha, dropped), "drop shadow"),
            (cast_shadows(bare, [predicted], cutout, alpha), "predicted"),
            (blend_pixels(cutout, alpha, shade_background(pin)), "true"),
        ):
            images.append(Image.fromarray(pixels))
            labels.append(label)
    return draw_contact_sheet(images, labels, columns=4, cell=SHEET_CELL)


def _spread(shadow: ShadowMap, pin: ShadowedPin) -> Opacity:
    """Return a map's opacity at the pixels of a pin."""
    height, width = pin.opacity.shape
    return shadow.interpolate(range(height), range(width)).astype(np.float32)


def _weigh_background(alpha: Alpha) -> Opacity:
    return np.asarray(1 - alpha, np.float32)
