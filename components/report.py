"""Stage `report`: one page with every stage's figures and images, whatever stages there are."""

from __future__ import annotations

import json

from components.artifacts import HeadlineMetrics, Verdict
from lifecycle.declare.stage import Collected, Input, Output, Report, stage


class Index(Report, path="reports/index.html"):
    """The page that a person opens after a run."""


@stage()
def report(
    collected: Collected, verdict: Input[Verdict], headline: Output[HeadlineMetrics], index: Output[Index]
) -> None:
    """Gather every stage's figures, curves, sheets and pages on one page, the headline first."""
    from evaluation.metrics import collect_headline, describe_headline
    from evaluation.pages.index import read_metrics, render_index_page

    values = collect_headline(read_metrics(collected.exhibits))
    headline.write(values)
    decision = json.loads(verdict.path.read_text(encoding="utf-8"))
    headlines = describe_headline(values)
    page = render_index_page(Index.path, "Canvas: what this run made", decision, headlines, collected.exhibits)
    index.write(page)
