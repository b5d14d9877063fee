"""The page of an evaluation: what the challenger is worth, beside the champion and products pasted on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.generator.comparison import Delta
from evaluation.judges.spec import describe_own_judges
from evaluation.metrics import CANDIDATE_MEASURES, SET_MEASURES, describe_measures
from evaluation.pages import html as pages
from evaluation.pages.html import Html, format_value
from evaluation.statistics.intervals import Interval

Metrics = Mapping[str, Any]

MEANS = "Means with 95 % intervals over items"
DISTANCES = "Distances to real held-out images with their standard errors, and diversity"


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """All that the page shows."""

    models: Mapping[str, Metrics]  # by tables.CANDIDATE_MODELS: evaluation.generator.metrics
    deltas: Sequence[Delta]  # challenger against champion, over all and by slice; empty without a champion
    worst: bytes  # PNG
    worst_by: str
    slices: Mapping[str, Mapping[str, Metrics]]  # of the challenger: column -> value -> metrics
    instruments: Mapping[str, Metrics]  # of "reward", "segmenter", "defects", and what is "frozen"
    drift: Metrics  # share, drifted, columns, distance


def render_evaluation_page(page: EvaluationPage) -> str:
    """Return the page as one HTML document."""
    worse = [delta for delta in page.deltas if delta.change == "worse"]
    challenger = page.models["challenger"]
    tiles = {
        CANDIDATE_MEASURES[name].title: challenger.get(key)
        for name, key in (
            ("scene_right", "scene_right"),
            ("reward_overall", "reward_overall"),
            ("core_max_abs_diff", "core_max_abs_diff_worst"),
        )
    }
    return pages.page(
        "Evaluation",
        pages.verdict(_describe_result(page, worse), "warn" if worse else "plain"),
        pages.metric_tiles(tiles | {SET_MEASURES[name].title: challenger.get(name) for name in ("kid", "vendi")}),
        pages.section("Measures", _tabulate_models(page.models, CANDIDATE_MEASURES, _format_interval, MEANS)),
        pages.section("Whole sets", _tabulate_models(page.models, SET_MEASURES, _format_with_error, DISTANCES)),
        pages.section("Instruments", *_tabulate_instruments(page.instruments)),
        pages.section("What got worse", *_tabulate_losses(page.deltas, worse)),
        pages.section("Slices", *(_tabulate_slices(column, values) for column, values in page.slices.items())),
        pages.section("Drift of generated images", *_tabulate_drift(page.drift)),
        pages.section("Worst images", pages.image(page.worst, f"The challenger's lowest {page.worst_by}")),
    )


def _describe_result(page: EvaluationPage, worse: Sequence[Delta]) -> str:
    challenger = page.models["challenger"]
    text = f"{format_value(challenger['pictures'])} images of {format_value(challenger['items'])} items"
    if not page.deltas:
        return f"{text}; there is no champion to compare with."
    whole = {delta.name for delta in worse if delta.name in CANDIDATE_MEASURES}
    losses = f"{len(whole)} of {len(CANDIDATE_MEASURES)} measures got worse, and {len(worse) - len(whole)} in slices"
    return f"{text}; against the champion {losses}."


def _tabulate_models(
    models: Mapping[str, Metrics],
    measures: Iterable[str],
    format_metric: Callable[[Metrics, str], str | None],
    caption: str,
) -> Html:
    rows = [
        {**row, **{model: format_metric(metrics, row["measure"]) for model, metrics in models.items()}}
        for row in describe_measures(measures)
    ]
    return pages.table(rows, caption)


def _tabulate_losses(deltas: Sequence[Delta], worse: Sequence[Delta]) -> list[Html]:
    if not deltas:
        return [pages.paragraph("There is no champion to compare with.")]
    if not worse:
        return [pages.paragraph(f"Nothing: none of {len(deltas)} differences lies below zero with its interval.")]
    rows = [
        {
            "measure": delta.name,
            "champion": delta.champion,
            "challenger": delta.challenger,
            "difference": delta.difference and f"{delta.difference}",
            "chance": delta.loss_by_chance,
        }
        for delta in sorted(worse, key=lambda delta: (delta.loss_by_chance or 0, delta.name))
    ]
    expected = f"{0.025 * len(deltas):.1f} of {len(deltas)} would look worse by chance"
    return [pages.paragraph(f"{len(worse)}; {expected}. The gate asks for more."), pages.table(rows)]


def _tabulate_slices(column: str, values: Mapping[str, Metrics]) -> Html:
    rows = [
        {column: value, "items": metrics["items"]} | {name: metrics.get(name) for name in CANDIDATE_MEASURES}
        for value, metrics in values.items()
    ]
    return pages.table(rows, f"The challenger by {column.replace('_', ' ')}")


def _tabulate_instruments(instruments: Mapping[str, Metrics]) -> list[Html]:
    rows = [
        {"instrument": name, "measure": measure, "value": _format_interval(metrics, measure)}
        for name, metrics in instruments.items()
        for measure in metrics
        if f"{measure}_low" in metrics
    ]
    notes = describe_own_judges(instruments["frozen"]) or ["Frozen references score both sides."]
    return [*map(pages.paragraph, notes), pages.table(rows, "How often the instruments are right on held-out pins")]


def _tabulate_drift(drift: Metrics) -> list[Html]:
    return [
        pages.paragraph(
            f"{format_value(drift['drifted'])} of {format_value(drift['columns'])} statistics of the challenger's "
            "images lie beyond the limit from those of the images that the champion learnt from."
        ),
        pages.table([{"statistic": name, "distance": value} for name, value in drift["distance"].items()]),
        pages.links({"Distributions of both sides": "drift.html"}),
    ]


def _format_interval(metrics: Metrics, name: str) -> str | None:
    if name not in metrics:
        return None
    return f"{Interval(*(metrics[name + end] for end in ('', '_low', '_high'))):.3g}"


def _format_with_error(metrics: Metrics, name: str) -> str | None:
    if f"{name}_error" not in metrics:
        return format_value(metrics[name]) if name in metrics else None
    return f"{metrics[name]:.3g} \N{PLUS-MINUS SIGN} {metrics[f'{name}_error']:.2g}"
