from __future__ import annotations

from dataclasses import replace

import pytest

from canvas.shards.rows import EngagementSelection, ShardRow
from canvas.shards.spec import EngagementRule
from lifecycle.declare.params import read_section

RULE = EngagementRule(min_impressions=100, share=0.5, saves_weight=2.0)


def row(
    saves: int, *, promoted: bool = True, kind: str = "product", split: str = "train", seen: int = 1000
) -> ShardRow:
    return ShardRow(
        row=0,
        pin_id=f"s{saves}",
        split=split,
        view=0,
        kind=kind,
        bucket="64x64",
        promoted=promoted,
        impressions=seen,
        saves=saves,
        clicks=10,
    )


def test_the_best_promoted_products_by_rate():
    others = [row(900, promoted=False), row(900, kind="scene"), row(90, seen=99)]
    engaged = EngagementSelection([row(saves) for saves in (10, 40, 20, 30)] + others, RULE)
    assert engaged.threshold == pytest.approx((2 * 30 + 10) / 1000)
    assert [saves for saves in (10, 20, 30, 40) if engaged(row(saves))] == [30, 40]
    assert not any(map(engaged, others))
    figures = engaged.compute_metrics()
    assert (figures["candidates"], figures["selected"]) == (4, 2)
    assert figures["mean_rate_of_selected"] == pytest.approx(0.08)


def test_views_of_a_pin_count_once():
    pins = [row(saves) for saves in (10, 40, 20, 30)]
    more = [replace(pin, row=1, view=view) for pin in pins for view in (0, 1)] + [replace(pins[0], view=2)] * 6
    engaged, figures = EngagementSelection(more, RULE), EngagementSelection(pins, RULE).compute_metrics()
    assert engaged.compute_metrics() == figures
    assert (figures["candidates"], figures["selected"]) == (4, 2)
    assert [one.view for one in more if engaged(one)] == [0, 1, 0, 1]  # trained on all of the selected


def test_the_threshold_is_the_train_splits():
    engaged = EngagementSelection([row(10), row(20), row(500, split="unseen_view")], RULE)
    assert engaged.threshold == pytest.approx(0.05)
    assert engaged(row(500, split="unseen_view"))


def test_nobody_to_select_from():
    nobody = EngagementSelection([row(10, promoted=False), row(10, seen=5)], RULE)
    assert nobody.is_empty
    assert not nobody(row(500, split="unseen_view"))
    assert EngagementSelection([replace(row(0), clicks=0)] * 3, RULE).is_empty  # seen, but nobody saved or clicked


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1.1}, {"min_impressions": 0}, {"saves_weight": -1.0}])
def test_impossible_rules(wrong):
    ((name, value),) = wrong.items()
    rule = {"min_impressions": 1, "share": 0.5, "saves_weight": 1.0, **wrong}
    with pytest.raises(ValueError, match=f"params key '{name}' in section 'rule' is {value}: it must be"):
        read_section(EngagementRule, "rule", {"rule": rule})
