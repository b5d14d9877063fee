"""Stage `report`: one page with every stage's figures and images, whatever stages there are."""

from __future__ import annotations

import json

from components.artifacts import Verdict
from lifecycle.declare.stage import Collected, Input, Metrics, Output, Report, stage

HEADLINE = {
    "pins": ("ingest", "pins"),
    "masks": ("mask", "pins"),
    "captions": ("caption", "rows"),
    "columns_drifted": ("monitor", "verdict.drifted_columns"),
    "backgrounds_that_show_the_prompt": ("evaluate_backdrop", "scene_accuracy"),
    "backgrounds_that_show_the_style": ("evaluate_style", "scene_follows"),
    "largest_change_of_a_product_pixel": ("evaluate", "challenger.core_max_abs_diff_worst"),
    "growth_of_the_product": ("evaluate", "challenger.extension"),
    "diversity": ("evaluate", "challenger.diversity"),
    "accuracy_of_the_scene_judge": ("evaluate", "judge.scene_accuracy_real"),
}
"""Name -> stage and figure of its metrics; left out where the stage did not measure it."""


class Index(Report):
    """The page that a person opens after a run."""

    path = "reports/index.html"


@stage()
def report(collected: Collected, verdict: Input[Verdict], metrics: Output[Metrics], index: Output[Index]) -> None:
    """Gather every stage's figures, curves, sheets and pages on one page."""
    from evaluation.pages.index import index_page, read_figures

    figures = read_figures(collected.exhibits)
    measured = {name: figures.get(made_by, {}).get(figure) for name, (made_by, figure) in HEADLINE.items()}
    headline = {name: value for name, value in measured.items() if value is not None}
    metrics.path.write_text(json.dumps(headline, indent=1) + "\n", encoding="utf-8")
    decision = json.loads(verdict.path.read_text(encoding="utf-8"))
    page = index_page(Index.path, "Canvas: what this run made", decision, headline, collected.exhibits)
    index.path.write_text(page, encoding="utf-8")
