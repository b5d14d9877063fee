"""What an evaluation comes to, by model and by slice. Rows are those of tables.EVALUATION."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from evaluation.generator.candidates import Row
from evaluation.generator.measure_names import MEASURES
from evaluation.measures.distances import (
    Features,
    cmmd,
    frechet_distance,
    half_sample_error,
    kernel_distance,
    vendi_score,
)
from evaluation.statistics.intervals import Interval, bootstrap_mean

FeatureName = Literal["trunk", "first", "second"]
"""What pictures are compared by: the judge's network, or an image tower of the text-image encoders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChoice:
    """By what each number of whole sets compares pictures."""

    fid: FeatureName
    kid: FeatureName
    cmmd: FeatureName
    vendi: FeatureName

    @property
    def names(self) -> set[FeatureName]:
        return {self.fid, self.kid, self.cmmd, self.vendi}


def compute_measure_mean(rows: Iterable[Row], name: str) -> Interval | None:
    """The mean of a measure where it is known, with its 95 % interval; None: nowhere.

    Pictures of one item depend on each other: the interval resamples items, each the mean over its seeds.
    """
    by_item: dict[str, list[float]] = {}
    for row in rows:
        if (value := row[name]) is not None and math.isfinite(value):
            by_item.setdefault(row["item_id"], []).append(value)
    return bootstrap_mean([float(np.mean(values)) for values in by_item.values()]) if by_item else None


def compute_model_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Pictures, items, every measure's mean with the ends of its interval, and the worst core difference."""
    found: dict[str, float] = {"pictures": len(rows), "items": len({row["item_id"] for row in rows})}
    for name in MEASURES:
        if (of := compute_measure_mean(rows, name)) is not None:
            found |= {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}
    differences = [row["core_max_abs_diff"] for row in rows if row["core_max_abs_diff"] is not None]
    return found | ({"core_max_abs_diff_worst": max(differences)} if differences else {})


def compute_set_metrics(
    real: Mapping[FeatureName, Features], made: Mapping[FeatureName, Features], choice: FeatureChoice
) -> dict[str, float]:
    """Distances of painted to real pictures, each with its standard error, and the painted ones' diversity."""
    found: dict[str, float] = {}
    for name, distance, by in (
        ("fid", frechet_distance, choice.fid),
        ("kid", kernel_distance, choice.kid),
        ("cmmd", cmmd, choice.cmmd),
    ):
        if min(len(real[by]), len(made[by])) >= 2:
            found |= {
                name: distance(real[by], made[by]),
                f"{name}_error": half_sample_error(distance, real[by], made[by]),
            }
    return found | {"vendi": vendi_score(made[choice.vendi])}


def compute_slice_metrics(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Column -> value -> figures of the rows that have it."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for column in columns:
        values = sorted({str(row[column]) for row in rows if row[column] is not None})
        found[column] = {
            value: compute_model_metrics([row for row in rows if str(row[column]) == value]) for value in values
        }
    return found


def select_worst(rows: Iterable[Row], by: str, count: int) -> list[Row]:
    """The `count` rows with the lowest `by`, worst first."""
    known: list[Any] = [row for row in rows if row[by] is not None and math.isfinite(row[by])]
    return sorted(known, key=lambda row: (row[by], row["candidate_id"]))[:count]
