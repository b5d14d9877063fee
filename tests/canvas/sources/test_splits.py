"""Which pins are held out, and what happens where hashes leave one side empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.sources.splits import HeldOutUnit, SplitAssigner, assign_split, hash_to_share

Pin = tuple[str | None, str]  # product, and board
SHORT = next(f"p{number}" for number in range(99) if hash_to_share(f"p{number}") < 0.2)
LONG = [name for number in range(99) if hash_to_share(name := f"p{number}") >= 0.2]


def settle(folder: Path, pins: Sequence[Pin], by: HeldOutUnit = "product", held_out: float = 0.2):
    """Splits of pins "0", "1", ..., and the notes."""
    splits, notes, rows = SplitAssigner(held_out, by), Notes(), []
    for at, (product, board) in enumerate(pins):
        split = splits.assign(product, str(at), {"board": board})
        values = {"pin_id": str(at), "image": b"x", "product_id": product, "board": board, "split": split}
        rows.append(dict.fromkeys(tables.PINS.names) | values)
    tables.write_rows(folder / "pins", rows, tables.PINS)
    splits.settle(folder / "pins", notes)
    settled = tables.read(folder / "pins").to_pylist()
    assert [row | {"split": None} for row in settled] == [row | {"split": None} for row in rows]
    assert [path.name for path in folder.iterdir()] == ["pins"]
    return [row["split"] for row in settled], notes.to_metrics().get("notes", [])


def test_splits_follow_the_product_and_hold_out_the_fraction() -> None:
    splits = [assign_split(f"p{number}", "any", 0.25) for number in range(4_000)]
    assert 0.22 < splits.count("unseen_product") / 4_000 < 0.28
    assert assign_split("p1", "x", 0.25) == assign_split("p1", "y", 0.25)
    assert {assign_split(None, f"{number}", 0.25) for number in range(100)} == {"train", "unseen_view"}
    assert assign_split("p1", "x", 0.0) == "train"


def test_where_both_sides_have_products_hashes_decide(tmp_path: Path) -> None:
    products = [LONG[0], SHORT, None, LONG[1]] * 70
    splits, notes = settle(tmp_path, [(product, "") for product in products])
    assert splits == [assign_split(product, str(at), 0.2) for at, product in enumerate(products)]
    assert notes == []


@pytest.mark.parametrize(("products", "nearest"), [(LONG[:2], min), (LONG[:9], min), ([SHORT, "p"], max)])
def test_the_product_nearest_to_the_limit_changes_sides(tmp_path: Path, products: list[str], nearest) -> None:
    held_out = 0.2 if nearest is min else 0.2001 + max(map(hash_to_share, products))
    moved = nearest(products, key=hash_to_share)
    splits, notes = settle(tmp_path, [(product, "") for product in [*products, *products, None]], held_out=held_out)
    one, rest = ("unseen_product", "train") if nearest is min else ("train", "unseen_product")
    assert splits[:-1] == [one if product == moved else rest for product in products] * 2
    assert splits[-1] == assign_split(None, str(2 * len(products)), held_out), "what has no product follows its hash"
    side = "no" if nearest is min else "every"
    assert notes == [f"by its hash {side} product of {len(products)} is held out, so the nearest to it changed sides"]


@pytest.mark.parametrize("product", [SHORT, LONG[0]])
def test_one_product_trains(tmp_path: Path, product: str) -> None:
    splits, notes = settle(tmp_path, [(product, "")] * 5)
    assert splits == ["train"] * 5
    assert notes == ["all pins show one product, so none is held out"]


def test_photographs_without_products_are_parted_alone(tmp_path: Path) -> None:
    splits, notes = settle(tmp_path, [(None, "")] * 2, held_out=1e-9)
    assert sorted(splits) == ["train", "unseen_view"]
    assert notes == ["by its hash no pin of 2 is held out, so the nearest to it changed sides"]


def test_nothing_is_held_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert settle(tmp_path, [(SHORT, "a"), (LONG[0], "b")], "board", held_out=0.0) == (["train", "train"], [])


def test_a_board_is_held_out_with_all_its_products(tmp_path: Path) -> None:
    pins = [("x", SHORT), ("x", LONG[0]), ("y", LONG[0]), (None, SHORT), (None, LONG[1]), (SHORT, ""), ("z", LONG[1])]
    splits, notes = settle(tmp_path, pins, "board")
    product, view = "unseen_product", "unseen_view"
    assert splits == [product, product, "train", view, "train", product, "train"]
    assert notes == []


def test_one_board_of_two_changes_sides(tmp_path: Path) -> None:
    low, high = sorted(LONG[:2], key=hash_to_share)
    splits, notes = settle(tmp_path, [("x", low), ("y", low), (None, low), ("z", high)], "board")
    assert splits == ["unseen_product", "unseen_product", "unseen_view", "train"]
    assert notes == ["by its hash no product of 3 is held out, so the nearest to it changed sides"]


@pytest.mark.parametrize(("boards", "count"), [(["", ""], 0), (["a", "a"], 1)])
def test_products_are_held_out_alone_where_boards_part_nothing(tmp_path: Path, boards: list[str], count: int) -> None:
    splits, notes = settle(tmp_path, list(zip([SHORT, LONG[0]], boards, strict=True)), "board")
    assert splits == ["unseen_product", "train"]
    assert notes == [f"there are {count} boards, which part nothing, so products were held out alone"]
