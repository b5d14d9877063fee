"""Metrics of an evaluation by model and slice, and its worst images. Rows are those of tables.EVALUATION."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from canvas.pins.images import decode_image, draw_contact_sheet, encode_png
from evaluation.generator.comparison import Row
from evaluation.generator.spec import FeatureChoice, FeatureName
from evaluation.measures import distances
from evaluation.measures.distances import Features
from evaluation.metrics import CANDIDATE_MEASURES
from evaluation.statistics.intervals import Interval, bootstrap_mean


def compute_measure_mean(rows: Iterable[Row], name: str) -> Interval | None:
    """Return the mean of a measure where it is known, with its 95 % interval; None: nowhere.

    The interval resamples items, each the mean over its seeds.
    """
    by_item: dict[str, list[float]] = {}
    for row in rows:
        if (value := row[name]) is not None and math.isfinite(value):
            by_item.setdefault(row["item_id"], []).append(value)
    return bootstrap_mean([float(np.mean(values)) for values in by_item.values()]) if by_item else None


def compute_model_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return counts, every measure's mean with its interval, and the worst core difference."""
    metrics: dict[str, float] = {"pictures": len(rows), "items": len({row["item_id"] for row in rows})}
    for name in CANDIDATE_MEASURES:
        if (mean := compute_measure_mean(rows, name)) is not None:
            metrics |= mean.to_metrics(name)
    differences = [row["core_max_abs_diff"] for row in rows if row["core_max_abs_diff"] is not None]
    return metrics | ({"core_max_abs_diff_worst": max(differences)} if differences else {})


def compute_set_metrics(
    real: Mapping[FeatureName, Features], generated: Mapping[FeatureName, Features], choice: FeatureChoice
) -> dict[str, float]:
    """Return distances of generated to real images with their standard errors, and the generated ones' diversity."""
    metrics: dict[str, float] = {}
    for name, distance, by in (
        ("fid", distances.frechet_distance, choice.fid),
        ("kid", distances.kernel_distance, choice.kid),
        ("cmmd", distances.cmmd, choice.cmmd),
    ):
        if min(len(real[by]), len(generated[by])) >= 2:
            metrics |= {
                name: distance(real[by], generated[by]),
                f"{name}_error": distances.half_sample_error(distance, real[by], generated[by]),
            }
    return metrics | {"vendi": distances.vendi_score(generated[choice.vendi])}


def compute_engaged_distance(engaged: Features, generated: Features) -> dict[str, float]:
    """Return the kernel distance of generated images to those of engaged pins, with its error; empty for too few."""
    if min(len(engaged), len(generated)) < 2:
        return {}
    error = distances.half_sample_error(distances.kernel_distance, engaged, generated)
    return {"kid_engaged": distances.kernel_distance(engaged, generated), "kid_engaged_error": error}


def compute_metrics_by_model(
    models: Mapping[str, Sequence[Row]], features: Mapping[str, Mapping[FeatureName, Features]], choice: FeatureChoice
) -> dict[str, dict[str, float]]:
    """Return model -> metrics of its rows, and of its whole set of images.

    Sets are compared with the "real" ones of `features`, and with the "engaged" ones where there are any.
    """
    metrics = {
        model: compute_model_metrics(rows) | compute_set_metrics(features["real"], features[model], choice)
        for model, rows in models.items()
    }
    if engaged := features.get("engaged"):
        for model, values in metrics.items():
            values |= compute_engaged_distance(engaged[choice.kid], features[model][choice.kid])
    return metrics


def compute_slice_metrics(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return column -> value -> metrics of the rows that have it."""
    return {
        column: {
            value: compute_model_metrics([row for row in rows if str(row[column]) == value])
            for value in sorted({str(row[column]) for row in rows if row[column] is not None})
        }
        for column in columns
    }


def select_worst(rows: Iterable[Row], by: str, count: int) -> list[Row]:
    """Return the `count` rows with the lowest `by`, worst first."""
    finite = [row for row in rows if row[by] is not None and math.isfinite(row[by])]
    return sorted(finite, key=lambda row: (row[by], row["candidate_id"]))[:count]


def draw_worst_sheet(rows: Iterable[Row], by: str, count: int) -> bytes:
    """Draw, as PNG, the images of the `count` rows with the lowest `by`, worst first."""
    worst = select_worst(rows, by, count)
    labels = [f"{row[by]:.2f} {row['prompt']}" for row in worst]
    return encode_png(draw_contact_sheet([decode_image(row["image"]) for row in worst], labels, columns=6, cell=150))
