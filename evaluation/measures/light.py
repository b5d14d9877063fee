"""How well a predicted gain is the gain that a scene's light truly gave a product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.light.gain import apply_gain
from canvas.light.laws import make_lawful
from canvas.light.model import LightModel, predict_gain
from canvas.light.relight import relight_pixels
from canvas.light.training import LightBatch, LitPin
from canvas.pins.images import draw_contact_sheet
from canvas.pins.masks import blend_pixels
from evaluation.statistics.intervals import compute_mean_metrics

SHEET_CELL = 160


@dataclass(frozen=True, slots=True)
class LightScore:
    """Errors are roots of mean squares of the log gain, over the product."""

    pin_id: str
    error: float  # of the lawful gain that was predicted
    unlit_error: float  # of no gain at all: G = 1
    constant_error: float  # of the lawful gain that training pins have on average
    lawful_error: float  # of the true gain made lawful: no prediction does better
    slope: float  # true log gain at the right side of the box less that at the left
    predicted_slope: float


@torch.no_grad()
def score_light(
    model: LightModel, batch: LightBatch, average: NDArray[np.float32], batch_size: int
) -> list[LightScore]:
    """Score the predictions for held-out pins; `average` is the mean log gain [G, G, 3] of the training pins."""
    scores, constant = [], make_lawful(average)
    for first in range(0, len(batch["pin_id"]), batch_size):
        rows = slice(first, first + batch_size)
        layers, boxes = batch["layers"][rows].to(model.device).float() / 255, batch["boxes"][rows].to(model.device)
        predictions = model(layers, boxes).float().cpu().numpy()
        truth = zip(batch["pin_id"][rows], batch["gains"][rows].numpy(), batch["weights"][rows].numpy(), strict=True)
        for predicted, (pin_id, true, weight) in zip(predictions, truth, strict=True):
            lawful = make_lawful(predicted)
            guesses = (lawful, np.zeros_like(true), constant, make_lawful(true))
            errors = [float(np.sqrt(((guess - true) ** 2 * weight).sum() / 3)) for guess in guesses]
            slopes = [float((gain[:, -1] - gain[:, 0]).mean()) for gain in (true, lawful)]
            scores.append(LightScore(pin_id, *errors, *slopes))
    return scores


def compute_light_metrics(scores: Sequence[LightScore], split_of: Mapping[str, str]) -> dict[str, object]:
    """Return the errors with intervals, of all held-out pins and by split.

    `error_share` is the error over that of G = 1, `slope_correlation` tells whether the side that light comes from was
    found.
    """
    values: dict[str, object] = dict(_compute_errors(scores))
    for split in sorted({split_of[score.pin_id] for score in scores}):
        values[split] = _compute_errors([score for score in scores if split_of[score.pin_id] == split])
    return values


def _compute_errors(scores: Sequence[LightScore]) -> dict[str, float]:
    values: dict[str, float] = {"pins": len(scores)}
    for name in ("error", "unlit_error", "constant_error", "lawful_error"):
        values |= compute_mean_metrics(name, [getattr(score, name) for score in scores])
    gained = [score.unlit_error - score.error for score in scores]
    values |= compute_mean_metrics("error_reduction", gained)
    values["error_share"] = values["error"] / max(values["unlit_error"], 1e-9)
    slopes = np.array([(score.slope, score.predicted_slope) for score in scores])
    if len(scores) > 2 and slopes.std(0).min() > 0:
        values["slope_correlation"] = float(np.corrcoef(slopes.T)[0, 1])
    return values


def draw_light_sheet(model: LightModel, pins: Iterable[LitPin]) -> Image.Image:
    """Draw held-out pins: the product as it is, under the lawful gain that is predicted, under the true gain."""
    images, labels = [], []
    for pin in pins:
        alpha = pin.alpha / pin.alpha.max()  # glass may have no opaque pixel
        predicted = predict_gain(model, pin.unlit, alpha, pin.pixels)
        lit, _ = relight_pixels(pin.unlit, alpha, predicted)
        true = apply_gain(pin.unlit, pin.log_gain, pin.box, pin.alpha > 0)
        for pixels, label in ((pin.unlit, "as it is"), (lit, "predicted"), (true, "true")):
            images.append(Image.fromarray(blend_pixels(pixels, pin.alpha, pin.pixels)))
            labels.append(label)
    return draw_contact_sheet(images, labels, columns=3, cell=SHEET_CELL)
