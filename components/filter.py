"""Stage `filter`: which pins are fit for training, and the first reason against each of the others."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.filters.near_duplicates import DuplicateLimits
from canvas.filters.quality import QualityLimits
from canvas.filters.relevance import TextLimits
from canvas.filters.text_overlay import OverlayLimits
from canvas.pins.engine import Engine
from canvas.ranges import Count, Share
from components.artifacts import Kept, Pins, Truth, ValidationMetrics
from lifecycle.declare.stage import Input, Metrics, Output, Plot, Report, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterParams:
    quality: QualityLimits
    text: TextLimits
    duplicates: DuplicateLimits
    overlay: OverlayLimits
    max_nsfw: Share  # probability
    sheet_each: Count  # pins shown on the contact sheet of a reason


class FilterFunnel(Plot):
    """Pins left after each filter."""

    x = "pins"
    y = "filter"
    template = "bar_horizontal_sorted"


@stage(machine="cpu")
def filter(
    filter: FilterParams,
    engine: Engine,
    pins: Input[Pins],
    truth: Input[Truth],
    validation: Input[ValidationMetrics],  # no pin is filtered before the table is valid
    kept: Output[Kept],
    metrics: Output[Metrics],
    report: Output[Report],
    funnel: Output[FilterFunnel],
    log: StepLog,
) -> None:
    """Drop unfit pins, cheapest test first: text, quality, near-duplicates, relevance, safety, overlay."""
    from canvas.filters import criteria as filters
    from canvas.filters.chain import FilterChain
    from canvas.pins import tables
    from canvas.pins.engine import start_engine
    from canvas.pins.fallbacks import Notes
    from evaluation.tables.filtering import FilterReport

    start_engine(engine)
    chain, notes = FilterChain(pins.path), Notes()
    filters.filter_by_text_presence(chain, filter.text, notes)
    filters.filter_by_quality(chain, filter.quality)
    filters.filter_near_duplicates(chain, filter.duplicates)
    filters.filter_by_relevance(chain, filter.text)
    filters.filter_by_safety(chain, filter.max_nsfw)
    filters.filter_by_overlay(chain, filter.overlay)
    for step, (name, left) in enumerate(chain.left.items()):
        log.metrics({f"left_after.{name}": left}, step)

    tables.write(kept.path, [chain.build_table()], tables.KEPT)
    results = FilterReport(chain, truth.path)
    metrics.write(results.compute_metrics() | notes.to_metrics())
    funnel.write(results.format_funnel_csv())
    report.write(results.render_page(filter.sheet_each))
