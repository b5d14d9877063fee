"""The page of an evaluation: what the challenger is worth, beside the champion and products pasted on pictures."""

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
    slices: Mapping[str, Mapping[str, Metrics]]  # of the challenger: column -> value -> figures
    deltas: Sequence[Delta]  # challenger against champion, over all and by slice; empty without a champion
    drift: Metrics  # share, drifted, columns, distance
    drift_page: str = "drift.html"  # relative address
    worst: bytes  # PNG
    worst_by: str


def render_evaluation_page(found: EvaluationPage) -> str:
    """The whole page."""
    worse = [delta for delta in found.deltas if delta.change == "worse"]
    return pages.page(
        "Evaluation",
        pages.verdict(_verdict(found, worse), "warn" if worse else "plain"),
        pages.metric_tiles(
            {
                said: found.models["challenger"].get(name)
                for said, name in {
                    "scenes right": "scene_right",
                    "reward": "reward_overall",
                    "largest change of the product": "core_max_abs_diff_worst",
                    "kernel distance": "kid",
                    "different pictures": "vendi",
                }.items()
            }
        ),
        pages.section("Measures", _measures(found.models)),
        pages.section("Whole sets", _sets(found.models)),
        pages.section("What got worse", *_losses(found.deltas, worse)),
        pages.section("Slices", *(_slices(column, values) for column, values in found.slices.items())),
        pages.section("Drift of painted pictures", *_drift(found)),
        pages.section("Worst pictures", pages.image(found.worst, f"The challenger's lowest {found.worst_by}")),
    )


def _verdict(found: EvaluationPage, worse: Sequence[Delta]) -> str:
    challenger = found.models["challenger"]
    text = f"{format_value(challenger['pictures'])} pictures of {format_value(challenger['items'])} items"
    if not found.deltas:
        return f"{text}; there is no champion to compare with."
    whole = {delta.name for delta in worse if delta.name in MEASURES}
    lost = f"{len(whole)} of {len(MEASURES)} measures got worse, and {len(worse) - len(whole)} in slices"
    return f"{text}; against the champion {lost}."


def _measures(models: Mapping[str, Metrics]) -> Html:
    rows = [
        {"measure": name, "better": "low" if name in LOWER_IS_BETTER else "high"}
        | {model: _format_interval(figures, name) for model, figures in models.items()}
        for name in MEASURES
    ]
    return pages.table(rows, "Means with 95 % intervals over items")


def _sets(models: Mapping[str, Metrics]) -> Html:
    rows = [
        {"number": name, "better": "low"}
        | {
            model: f"{figures[name]:.3g} \N{PLUS-MINUS SIGN} {figures[f'{name}_error']:.2g}"
            for model, figures in models.items()
            if name in figures
        }
        for name in SET_METRICS
    ]
    rows.append(
        {"number": "vendi", "better": "high"} | {model: format_value(of.get("vendi")) for model, of in models.items()}
    )
    return pages.table(rows, "Distances to real held-out pictures with their standard errors, and diversity")


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
        {column: value, "items": figures["items"]} | {name: figures.get(name) for name in MEASURES}
        for value, figures in values.items()
    ]
    return pages.table(rows, f"The challenger by {column.replace('_', ' ')}")


def _drift(found: EvaluationPage) -> list[Html]:
    drift = found.drift
    rows = [{"statistic": name, "distance": value} for name, value in drift["distance"].items()]
    return [
        pages.paragraph(
            f"{format_value(drift['drifted'])} of {format_value(drift['columns'])} statistics of the challenger's "
            "images lie beyond the limit from those of the images that the champion learnt from."
        ),
        pages.table(rows),
        pages.links({"Evidently's report": found.drift_page}),
    ]


def _format_interval(figures: Metrics, name: str) -> str | None:
    if name not in figures:
        return None
    return f"{figures[name]:.3g} [{figures[f'{name}_low']:.3g}, {figures[f'{name}_high']:.3g}]"
