"""What the parts of the bench share: the model and held-out pins of a full run, and summaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from canvas.inference.pipeline import CanvasPipeline
from canvas.pins import tables
from canvas.pins.products import load_product_pins
from evaluation.scenes.subjects import Subjects
from evaluation.statistics.intervals import bootstrap_mean
from lifecycle.declare.params import load_sections

TABLES = ("pins", "kept", "masks", "captions")


def load_subjects(root: Path, count: int) -> Subjects:
    """Load the model of a full run below `root`, and at most `count` held-out pins, of held-out products first."""
    paths = [root / "artifacts" / name for name in TABLES]
    pins = load_product_pins(*paths, splits=("unseen_product", "unseen_both"), count=count)
    if len(pins) < count:
        pin_ids = {pin.pin_id for pin in pins}
        more = load_product_pins(*paths, splits=tables.HELD_OUT_SPLITS, count=2 * count)
        pins += [pin for pin in more if pin.pin_id not in pin_ids][: count - len(pins)]
    pipeline = CanvasPipeline.from_pretrained(root / "models" / "canvas")
    return Subjects.of_pipeline(pipeline, pins, load_sections("demo", root)["backgrounds"]["prompts"])


def summarize(values: Sequence[float]) -> list[float]:
    """Return the mean and both ends of its interval."""
    interval = bootstrap_mean(list(values))
    return [round(value, 4) for value in (interval.mean, interval.low, interval.high)]
