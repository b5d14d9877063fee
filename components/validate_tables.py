"""Stage `validate_tables`: the sidecar tables are what those who train on them expect."""

from __future__ import annotations

from components.artifacts import Captions, Kept, Masks, Pins
from evaluation.tables.spec import Limits
from lifecycle.declare.stage import Input, Metrics, Output, Report, Scratch, Site, stage


@stage()
def validate_tables(
    expectations: Limits,
    pins: Input[Pins],
    kept: Input[Kept],
    masks: Input[Masks],
    captions: Input[Captions],
    metrics: Output[Metrics],
    report: Output[Report],
    docs: Output[Site],
    scratch: Scratch,
) -> None:
    """Check kept, masks and captions with Great Expectations; a critical failure stops the run."""
    from canvas.pins import tables
    from evaluation.tables.expectations import count_checks, read_suite_frame, validate_frames

    all_pins = set(tables.read(pins.path, ["pin_id"])["pin_id"].to_pylist())
    kept_pins = tables.read_kept_splits(pins.path, kept.path).keys()
    frames = {
        "kept": read_suite_frame(kept.path, all_pins),
        "masks": read_suite_frame(masks.path, kept_pins),
        "captions": read_suite_frame(captions.path, kept_pins),
    }
    validation = validate_frames(
        "Validation of the sidecars", frames, expectations, docs.path, scratch.path / "validation.html"
    )
    metrics.write(count_checks(validation.checks))
    report.write(validation.page)
