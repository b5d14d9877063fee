"""The page of an evaluation: what the challenger is worth, beside the champion and products pasted on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.generator.comparison import LOWER_IS_BETTER, MEASURES, Delta
from evaluation.pages import html as pages
from evaluation.pages.html import Html, format_value

Metrics = Mapping[str, Any]

SET_METRICS = ("fid", "kid", "cmmd")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPage:
    """All that the page shows."""

    models: Mapping[str, Metrics]  # by tables.CANDIDATE_MODELS: evaluation.generator.metrics
    slices: Mapping[str, Mapping[str, Metrics]]  # of the challenger: column -> value -> metrics
    deltas: Sequence[Delta]  # challenger against champion, over all and by slice; empty without a champion
    drift: Metrics  # share, drifted, columns, distance
    drift_page: str = "drift.html"  # relative address
    worst: bytes  # PNG
    worst_by: str


def render_evaluation_page(page: EvaluationPage) -> str:
    """Return the page as one HTML document."""
    worse = [delta for delta in page.deltas if delta.change == "worse"]
    return pages.page(
        "Evaluation",
        pages.verdict(_verdict(page, worse), "warn" if worse else "plain"),
        pages.metric_tiles(
            {
                title: page.models["challenger"].get(name)
                for title, name in {
                    "scenes right": "scene_right",
                    "reward": "reward_overall",
                    "largest change of the product": "core_max_abs_diff_worst",
                    "kernel distance": "kid",
                    "different images": "vendi",
                }.items()
            }
        ),
        pages.section("Measures", _measures(page.models)),
        pages.section("Whole sets", _sets(page.models)),
        pages.section("What got worse", *_losses(page.deltas, worse)),
        pages.section("Slices", *(_slices(column, values) for column, values in page.slices.items())),
        pages.section("Drift of generated images", *_drift(page)),
        pages.section("Worst images", pages.image(page.worst, f"The challenger's lowest {page.worst_by}")),
    )


def _verdict(page: EvaluationPage, worse: Sequence[Delta]) -> str:
    challenger = page.models["challenger"]
    text = f"{format_value(challenger['pictures'])} images of {format_value(challenger['items'])} items"
    if not page.deltas:
        return f"{text}; there is no champion to compare with."
    whole = {delta.name for delta in worse if delta.name in MEASURES}
    lost = f"{len(whole)} of {len(MEASURES)} measures got worse, and {len(worse) - len(whole)} in slices"
    return f"{text}; against the champion {lost}."


def _measures(models: Mapping[str, Metrics]) -> Html:
    rows = [
        {"measure": name, "better": "low" if name in LOWER_IS_BETTER else "high"}
        | {model: _format_interval(metrics, name) for model, metrics in models.items()}
        for name in MEASURES
    ]
    return pages.table(rows, "Means with 95 % intervals over items")


def _sets(models: Mapping[str, Metrics]) -> Html:
    rows = [
        {"number": name, "better": "low"}
        | {
            model: f"{metrics[name]:.3g} \N{PLUS-MINUS SIGN} {metrics[f'{name}_error']:.2g}"
            for model, metrics in models.items()
            if name in metrics
        }
        for name in SET_METRICS
    ]
    rows.append(
        {"number": "vendi", "better": "high"}
        | {model: format_value(metrics.get("vendi")) for model, metrics in models.items()}
    )
    return pages.table(rows, "Distances to real held-out images with their standard errors, and diversity")


def _losses(deltas: Sequence[Delta], worse: Sequence[Delta]) -> list[Html]:
    if not deltas:
        return [pages.paragraph("There is no champion to compare with.")]
    if not worse:
        return [pages.paragraph(f"Nothing: none of {len(deltas)} differences lies below zero with its interval.")]
    rows = [
        {
            "measure": delta.name,
            "champion": delta.champion,
            "challenger": delta.challenger,
            "difference": str(delta.difference),
            "chance": delta.loss_by_chance,
        }
        for delta in sorted(worse, key=lambda delta: (delta.loss_by_chance or 0, delta.name))
    ]
    expected = f"{0.025 * len(deltas):.1f} of {len(deltas)} would look worse by chance"
    return [pages.paragraph(f"{len(worse)}; {expected}. The gate asks for more."), pages.table(rows)]


def _slices(column: str, values: Mapping[str, Metrics]) -> Html:
    rows = [
        {column: value, "items": metrics["items"]} | {name: metrics.get(name) for name in MEASURES}
        for value, metrics in values.items()
    ]
    return pages.table(rows, f"The challenger by {column.replace('_', ' ')}")


def _drift(page: EvaluationPage) -> list[Html]:
    drift = page.drift
    rows = [{"statistic": name, "distance": value} for name, value in drift["distance"].items()]
    return [
        pages.paragraph(
            f"{format_value(drift['drifted'])} of {format_value(drift['columns'])} statistics of the challenger's "
            "images lie beyond the limit from those of the images that the champion learnt from."
        ),
        pages.table(rows),
        pages.links({"Evidently's report": page.drift_page}),
    ]


def _format_interval(metrics: Metrics, name: str) -> str | None:
    if name not in metrics:
        return None
    return f"{metrics[name]:.3g} [{metrics[f'{name}_low']:.3g}, {metrics[f'{name}_high']:.3g}]"
