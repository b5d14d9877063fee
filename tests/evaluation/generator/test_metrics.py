from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from canvas.pins.tables import EVALUATION
from evaluation.generator.metrics import (
    compute_measure_mean,
    compute_metrics_by_model,
    compute_model_metrics,
    compute_set_metrics,
    compute_slice_metrics,
    select_worst,
)
from evaluation.generator.spec import FeatureChoice

CHOICE = FeatureChoice(fid="trunk", kid="trunk", cmmd="second", vendi="first")


def row(item: str, reward: float | None, **changes: Any) -> dict[str, Any]:
    return (
        dict.fromkeys(EVALUATION.names)
        | {"candidate_id": f"{item}{reward}", "item_id": item, "reward_overall": reward, "core_max_abs_diff": 0.0}
        | changes
    )


def test_an_item_counts_once_however_many_seeds_it_has() -> None:
    interval = compute_measure_mean([row("a", 0.0), row("a", 1.0), row("a", 0.5), row("b", 1.0)], "reward_overall")
    assert interval is not None
    assert interval.mean == pytest.approx(0.75)
    assert 0.5 <= interval.low <= interval.mean <= interval.high <= 1.0


def test_what_is_not_known_is_left_out() -> None:
    rows = [row("a", 0.5), row("b", None), row("c", float("nan"))]
    interval = compute_measure_mean(rows, "reward_overall")
    assert interval is not None
    assert interval.mean == 0.5
    assert compute_measure_mean(rows, "scene_right") is None
    figures = compute_model_metrics(rows)
    assert (figures["pictures"], figures["items"], figures["reward_overall"]) == (3, 3, 0.5)
    assert "scene_right" not in figures


def test_one_changed_product_among_many_is_the_worst() -> None:
    rows = [row(str(item), 0.5) for item in range(99)] + [row("bad", 0.5, core_max_abs_diff=7.0)]
    figures = compute_model_metrics(rows)
    assert figures["core_max_abs_diff"] == pytest.approx(0.07)
    assert figures["core_max_abs_diff_worst"] == 7


def test_slices() -> None:
    rows = [
        row("a", 0.2, scene="forest", category="Mugs"),
        row("b", 0.4, scene="forest"),
        row("c", 0.9, scene="lobby", category="Mugs"),
    ]
    metrics = compute_slice_metrics(rows, ("scene", "category"))
    assert {scene: of["reward_overall"] for scene, of in metrics["scene"].items()} == {
        "forest": pytest.approx(0.3),
        "lobby": 0.9,
    }
    assert metrics["category"]["Mugs"]["items"] == 2


def test_sets_are_compared_by_the_chosen_features() -> None:
    rng = np.random.default_rng(0)
    real = {name: rng.normal(size=(40, 8)).astype(np.float32) for name in ("trunk", "first", "second")}
    generated = {**real, "second": real["second"] + 1}
    metrics = compute_set_metrics(real, generated, CHOICE)
    assert metrics["fid"] == pytest.approx(0, abs=1e-4)
    assert metrics["cmmd"] > 3 * metrics["cmmd_error"] > 0
    assert 1 < metrics["vendi"] <= 40
    assert CHOICE.names == {"trunk", "first", "second"}


def test_engaged_pins_are_compared_where_there_are_any() -> None:
    rng = np.random.default_rng(0)
    real = {name: rng.normal(size=(40, 8)).astype(np.float32) for name in ("trunk", "first", "second")}
    far = {name: values + 1 for name, values in real.items()}
    models = {"challenger": [row("a", 0.5)], "champion": [row("a", 0.5)]}
    sets = {"real": real, "engaged": real, "challenger": real, "champion": far}
    metrics = compute_metrics_by_model(models, sets, CHOICE)
    assert metrics["challenger"]["kid_engaged"] == metrics["challenger"]["kid"]
    assert metrics["champion"]["kid_engaged"] > metrics["challenger"]["kid_engaged"]
    for engaged in ({}, {"engaged": {name: values[:1] for name, values in real.items()}}):
        sets = {"real": real, "challenger": real, "champion": far} | engaged
        assert "kid_engaged" not in compute_metrics_by_model(models, sets, CHOICE)["champion"]


def test_one_image_has_no_distance() -> None:
    one = {name: np.ones((1, 8), np.float32) for name in ("trunk", "first", "second")}
    assert compute_set_metrics(one, one, CHOICE) == {"vendi": pytest.approx(1)}


def test_worst_first() -> None:
    rows = [row("a", 0.5), row("b", 0.1), row("c", None), row("d", 0.3), row("e", float("nan"))]
    assert [one["item_id"] for one in select_worst(rows, "reward_overall", 2)] == ["b", "d"]
