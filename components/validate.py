"""Stage `validate`: no pin goes on before the pins table is what it should be."""

from __future__ import annotations

from components.artifacts import Pins, ValidationMetrics
from evaluation.tables.spec import Limits
from lifecycle.declare.stage import Input, Output, Report, Scratch, Site, stage


@stage()
def validate(
    expectations: Limits,
    pins: Input[Pins],
    metrics: Output[ValidationMetrics],
    report: Output[Report],
    docs: Output[Site],
    scratch: Scratch,
) -> None:
    """Check the pins table with Great Expectations; a critical failure stops the run."""
    from evaluation.tables.expectations import count_checks, read_suite_frame, validate_frames

    frames = {"pins": read_suite_frame(pins.path, None)}
    validation = validate_frames(
        "Validation of the pins", frames, expectations, docs.path, scratch.path / "validation.html"
    )
    metrics.write(count_checks(validation.checks))
    report.write(validation.page)
