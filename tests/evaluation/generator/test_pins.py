from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canvas.pins import tables
from canvas.shards.spec import EngagementRule
from evaluation.generator.pins import select_engaged_pins

RULE = EngagementRule(min_impressions=100, share=0.5, saves_weight=2.0)


def write_tables(root: Path, *changes: dict[str, Any]) -> tuple[Path, Path]:
    """Promoted product pins with 1000 impressions and more clicks one after the other; the last is held out."""
    pins, kept = [], []
    for number, change in enumerate(changes):
        split = "train" if number < len(changes) - 1 else "unseen_product"
        engagement = {"promoted": True, "impressions": 1000, "saves": 0, "clicks": 10 * number}
        row = {"pin_id": f"p{number}", "product_id": "mug", "split": split, **engagement}
        pins.append(dict.fromkeys(tables.PINS.names) | row | change)
        kept.append(dict.fromkeys(tables.KEPT.names) | {"pin_id": f"p{number}", "kept": not change.get("dropped")})
    pins = [{name: row[name] for name in tables.PINS.names} for row in pins]
    tables.write_rows(root / "pins", pins, tables.PINS)
    tables.write_rows(root / "kept", kept, tables.KEPT)
    return root / "pins", root / "kept"


def test_the_best_half_of_the_train_split_sets_the_rate_for_all(tmp_path: Path) -> None:
    places = write_tables(tmp_path, {}, {}, {}, {}, {"clicks": 25})
    assert select_engaged_pins(*places, RULE) == ["p2", "p3", "p4"]


@pytest.mark.parametrize(
    "change",
    [{"promoted": False}, {"impressions": 99}, {"product_id": None}, {"dropped": True}, {"clicks": None}],
)
def test_what_is_no_engaged_pin(tmp_path: Path, change: dict[str, Any]) -> None:
    places = write_tables(tmp_path, {}, {"clicks": 900} | change, {"saves": 20}, {}, {"clicks": 0})
    assert "p1" not in select_engaged_pins(*places, RULE)


def test_a_catalogue_without_engagement_has_none(tmp_path: Path) -> None:
    nothing = {"promoted": None, "impressions": None, "saves": None, "clicks": None}
    assert select_engaged_pins(*write_tables(tmp_path, nothing, nothing), RULE) == []
