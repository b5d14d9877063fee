"""Drift of columns and image statistics between two sets of pins, or of generated images, by Evidently.

The methods are named, never left to Evidently's defaults: for small data those test a p-value and pass what has
clearly moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from canvas.filters.quality import measure_quality
from canvas.pins import tables
from canvas.pins.images import decode_image
from evaluation.pages.drift import render_drift_page
from evaluation.tables.spec import DriftLimits

COUNTS = ("impressions", "saves", "clicks")
NUMERICAL = ("short_side", "aspect", "sharpness", "brightness", "clipped", "entropy", "text_length", *COUNTS)
DIGITS = 12  # of a distance
CATEGORICAL = ("category", "board", "promoted", "source")


@dataclass(frozen=True, slots=True)
class Drift:
    """Distance of each column, which ones drifted, the verdict, and the page (HTML)."""

    distances: Mapping[str, float]
    drifted: tuple[str, ...]
    verdict: bool
    page: str

    def to_metrics(self) -> dict[str, Any]:
        return {
            "share": len(self.drifted) / len(self.distances),
            "drifted": len(self.drifted),
            "columns": len(self.distances),
            "distance": dict(self.distances),
        }


def read_pin_statistics(pins: Path, kept: Path) -> pd.DataFrame:
    """Read one row a pin: its columns and the filter's image statistics."""
    columns = tables.read(pins, ["pin_id", "split", *CATEGORICAL, *COUNTS]).to_pandas()
    scores = tables.read(kept, ["pin_id", *(name for name in NUMERICAL if name in tables.KEPT.names)]).to_pandas()
    frame = columns.merge(scores, on="pin_id", validate="one_to_one")
    return frame.astype(dict.fromkeys(NUMERICAL, "float64") | dict.fromkeys(CATEGORICAL, "object"))


def write_training_statistics(path: Path, pins: Path, kept: Path) -> pd.DataFrame:
    """Write tables.TRAINING_STATISTICS, a row an image that models train on with its measures, and return it."""
    train, _ = tables.read_train_and_held_out(pins, kept)
    schema = tables.TRAINING_STATISTICS
    frame = tables.read(kept, schema.names).to_pandas()
    statistics = frame[frame["pin_id"].isin(train)]
    tables.write(path, [pa.Table.from_pandas(statistics, schema, preserve_index=False)], schema)
    return statistics


def measure_candidate_drift(
    candidates: Iterable[Mapping[str, Any]], champion: Path, training: pd.DataFrame, limits: DriftLimits
) -> Drift:
    """Return the drift of candidates' images from the champion's training data, or without one from `training`."""
    table = champion / "training_statistics"
    reference = tables.read(table).to_pandas() if table.is_dir() else training
    current = pd.DataFrame([asdict(measure_quality(decode_image(row["image"]))) for row in candidates])
    return measure_drift(reference, current, limits)


def measure_drift(reference: pd.DataFrame, current: pd.DataFrame, limits: DriftLimits) -> Drift:
    """Measure how far the columns of `current` are from those of `reference`.

    Columns that a side lacks, or that are empty there, are left out. Raises `ValueError` if a side has no rows, or no
    column is left.
    """
    for name, side in (("reference", reference), ("current", current)):
        if side.empty:
            raise ValueError(f"the {name} side of the drift comparison has no images: choose a split that has some")
    numerical, categorical = (
        [name for name in names if all(name in side and side[name].notna().any() for side in (reference, current))]
        for names in (NUMERICAL, CATEGORICAL)
    )
    if not numerical + categorical:
        raise ValueError("no column has values on both sides of the drift comparison: filter the pins first")
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    metrics = [
        *(ValueDrift(column=name, method="wasserstein", threshold=limits.numerical) for name in numerical),
        *(ValueDrift(column=name, method="jensenshannon", threshold=limits.categorical) for name in categorical),
    ]
    snapshot = Report(metrics).run(
        current_data=Dataset.from_pandas(current[numerical + categorical], data_definition=definition),
        reference_data=Dataset.from_pandas(reference[numerical + categorical], data_definition=definition),
    )
    values = {str(metric["config"]["column"]): float(metric["value"]) for metric in snapshot.dict()["metrics"]}
    # Evidently adds up categories in the order of a set, which each process has its own of: the last digits differ
    distances = {name: round(value, DIGITS) for name, value in values.items()}
    limit = dict.fromkeys(numerical, limits.numerical) | dict.fromkeys(categorical, limits.categorical)
    # `not <=`: a distance that is not a number counts as drift
    drifted = tuple(name for name, distance in distances.items() if not distance <= limit[name])
    page = render_drift_page(distances, limit, drifted, numerical, reference, current)
    return Drift(distances, drifted, len(drifted) > limits.max_share * len(distances), page)
