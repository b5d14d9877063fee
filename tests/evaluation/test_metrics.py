"""The headline metrics: one description of each, wherever a person reads it."""

from __future__ import annotations

import math
from pathlib import Path

from canvas.pins.tables import CANDIDATES, EVALUATION
from components.artifacts import HeadlineMetrics
from evaluation.metrics import (
    CANDIDATE_MEASURES,
    HEADLINE,
    PAGE,
    SET_MEASURES,
    SUMMARY,
    collect_headline,
    describe_headline,
    get_title,
    look_up_metric,
    render_page,
)
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections

ROOT = Path(__file__).parents[2]
BY_NAME = {metric.name: metric for metric in HEADLINE}


def test_every_metric_is_named_once_and_comes_from_a_stage() -> None:
    assert len(BY_NAME) == len({metric.measure.title for metric in HEADLINE}) == len(HEADLINE)
    assert {metric.stage for metric in HEADLINE} <= {stage.name for stage in load_stages("components")}
    assert BY_NAME.keys() >= set(SUMMARY)


def test_limits_are_those_of_the_gates() -> None:
    gate = load_sections(root=ROOT)["gate"]
    limits = {"higher": gate["floors"], "lower": gate["ceilings"]}
    for metric in HEADLINE:
        assert (metric.kind == "limit") == (limits[metric.measure.better].get(metric.key) == metric.mark is not None)


def test_page_holds_the_table() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page == render_page(page), "docs/reference/metrics.md has drifted: run `python -m evaluation.metrics`"
    assert page.count("\n## Headline") == 1
    assert all(f"| `{name}` |" in page for name in (*BY_NAME, *CANDIDATE_MEASURES, *SET_MEASURES))


def test_every_measure_of_a_candidate_is_described() -> None:
    assert list(CANDIDATE_MEASURES) == [
        name for name in EVALUATION.names if name not in (*CANDIDATES.names, "mask_size", "aspect")
    ]


def test_a_value_is_read_with_its_unit_and_mark() -> None:
    values = {"scene_accuracy": 0.7, "extension": 0.08, "vae_psnr": 27.2, "seam_ratio": math.nan, "pins_kept": 2077}
    assert describe_headline(values) == {
        "Pins kept": "2,077 pins",
        "VAE PSNR": "27.2 dB",
        "Scene accuracy": "0.7 (goal: at least 0.75, missed)",
        "Product extension": "0.08 (limit: at most 0.1)",
        "Seam ratio": "nan (goal: at most 1.15, missed)",
    }
    assert [line.split("  ")[0] for line in HeadlineMetrics.format_summary(values)] == [
        "Scene accuracy",
        "Product extension",
        "Seam ratio",
    ]


def test_only_what_was_measured_is_collected() -> None:
    metrics = {
        "mask": {"rejected.empty": 1, "rejected.too small": 2},
        "filter": {"kept_pins": 3},
        "unknown": {"kept": 1},
    }
    assert collect_headline(metrics) == {"mask_rejects": 3}
    assert look_up_metric({"kept": 0.0}, "kept") == 0.0
    assert look_up_metric({"kept_pins": 1.0}, "kept") is None


def test_a_key_is_read_with_its_title() -> None:
    assert get_title("evaluate", "challenger.extension") == "Product extension (challenger.extension)"
    assert get_title("evaluate", "paste.extension") == "paste.extension"
