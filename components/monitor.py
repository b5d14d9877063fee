"""Stage `monitor`: have the pins drifted away from those the models were trained on?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import Kept, Pins
from evaluation.tables.spec import DriftLimits
from lifecycle.declare.stage import Input, Metrics, Output, Report, stage

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorParams:
    reference: tuple[str, ...]  # splits that the current pins are compared with
    current: tuple[str, ...]  # splits whose drift is measured
    reference_version: str | None  # directory with pins/ and kept/ of another data version, as `dvc get` makes it
    limits: DriftLimits


@stage()
def monitor(
    monitor: MonitorParams,
    pins: Input[Pins],
    kept: Input[Kept],
    metrics: Output[Metrics],
    report: Output[Report],
) -> None:
    """Measure drift of columns and image statistics between splits or data versions with Evidently."""
    from canvas.pins.fallbacks import Notes, choose_splits
    from evaluation.tables.drift import measure_drift, read_pin_statistics

    notes = Notes()
    frame = read_pin_statistics(pins.path, kept.path)
    version = frame if monitor.reference_version is None else _read_version(Path(monitor.reference_version))
    reference, current = (
        table["split"].isin(choose_splits(table["split"], wanted, notes))
        for table, wanted in ((version, monitor.reference), (frame, monitor.current))
    )
    drift = measure_drift(version[reference], frame[current], monitor.limits)
    figures = {
        "verdict": {"drift": int(drift.verdict), "drifted_columns": len(drift.drifted)},
        "columns": len(drift.distances),
        "distance": drift.distances,
    }
    metrics.write(figures | notes.to_metrics())
    report.write(drift.page)


def _read_version(directory: Path) -> pd.DataFrame:
    from evaluation.tables.drift import read_pin_statistics

    for name in ("pins", "kept"):
        if not (directory / name).is_dir():
            raise ValueError(
                f"monitor.reference_version {str(directory)!r} has no {name}/: fetch one with "
                f"`dvc get --rev REVISION . artifacts/{name} -o {directory / name}`"
            )
    return read_pin_statistics(directory / "pins", directory / "kept")
