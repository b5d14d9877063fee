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
    reference: tuple[str, ...]  # splits
    current: tuple[str, ...]  # splits
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
    from evaluation.tables.drift import measure_drift, read_pin_statistics

    here = read_pin_statistics(pins.path, kept.path)
    before = here if monitor.reference_version is None else _read_version(Path(monitor.reference_version))
    found = measure_drift(
        _select_splits(before, monitor.reference), _select_splits(here, monitor.current), monitor.limits
    )
    figures = {
        "verdict": {"drift": int(found.verdict), "drifted_columns": len(found.drifted)},
        "columns": len(found.distances),
        "distance": found.distances,
    }
    metrics.write(figures)
    report.write(found.page)


def _read_version(directory: Path) -> pd.DataFrame:
    from evaluation.tables.drift import read_pin_statistics

    for name in ("pins", "kept"):
        if not (directory / name).is_dir():
            raise ValueError(
                f"monitor.reference_version {str(directory)!r} has no {name}/: fetch one with "
                f"`dvc get --rev REVISION . artifacts/{name} -o {directory / name}`"
            )
    return read_pin_statistics(directory / "pins", directory / "kept")


def _select_splits(frame: pd.DataFrame, splits: tuple[str, ...]) -> pd.DataFrame:
    return frame[frame["split"].isin(splits)]
