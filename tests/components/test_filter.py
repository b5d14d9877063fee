from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from canvas.filters.chain import FilterChain
from canvas.pins import tables
from canvas.pins.engine import Engine, start_engine
from canvas.sources.showroom.render import load_showroom, render_pins
from canvas.sources.showroom.spec import DEFECTS, ShowroomSpec
from components.filter import FilterParams, filter
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.stage import Input, Output
from tests.canvas.showroom_files import write_showroom_files

ENGINE = Engine(runner="native", ray_address=None, threads=2)
TINY = load_sections("tiny", Path(__file__).parents[2])
PARAMS: FilterParams = read_stage_params(filter, TINY)["filter"]
SPEC = ShowroomSpec(
    pins=72, on_white=0.1, scene_only=0.1, unseen_product=0.1, unseen_view=0.1, unseen_both=0.1, defective=0.25
)


class Log:
    def __init__(self) -> None:
        self.left: list[float] = []

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        assert step == len(self.left)
        self.left += values.values()

    def image(self, name: str, png: bytes) -> None:
        raise AssertionError(name)


def run(pins: Path, truth: Path, out: Path, params: FilterParams = PARAMS) -> Log:
    out.mkdir()
    log = Log()
    outputs: Any = {name: Output(out / name) for name in filter.outputs}
    valid = out / "validation"  # only there to order the stages
    filter(
        filter=params,
        engine=ENGINE,
        pins=Input(pins),
        truth=Input(truth),
        validation=Input(valid),
        log=log,
        **outputs,
    )
    return log


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pins` and `truth` of a painted showroom, and `out`: what the stage made of them."""
    folder = tmp_path_factory.mktemp("filter")
    batches = list(render_pins(load_showroom(write_showroom_files(folder), SPEC, seed=0), threads=2))
    tables.write(folder / "pins", [pins for pins, _ in batches], tables.PINS)
    tables.write(folder / "truth", [truth for _, truth in batches], tables.TRUTH)
    run(folder / "pins", folder / "truth", folder / "out")
    return folder


@pytest.fixture(scope="module")
def rows(tree: Path) -> list[dict[str, Any]]:
    """The kept table, each row with what was planted."""
    planted = tables.read(tree / "truth", ["pin_id", "defect", "copy_of"]).to_pylist()
    kept = tables.read(tree / "out" / "kept").to_pylist()
    assert [row["pin_id"] for row in kept] == [row["pin_id"] for row in planted]
    return [row | truth for row, truth in zip(kept, planted, strict=True)]


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_planted_defect_is_dropped(rows: list[dict[str, Any]], defect: str) -> None:
    reasons = [row["reason"] for row in rows if row["defect"] == defect]
    assert reasons
    assert None not in reasons
    if defect in ("broken_bytes", "tiny", "empty_text"):
        assert set(reasons) == {defect}


def test_most_good_pins_are_kept(rows: list[dict[str, Any]]) -> None:
    good = [row["kept"] for row in rows if row["defect"] is None]
    assert sum(good) / len(good) > 0.8


def test_a_pin_has_a_reason_or_is_kept(rows: list[dict[str, Any]]) -> None:
    assert all(row["kept"] == (row["reason"] is None) for row in rows)


def test_a_copy_names_the_pin_that_stays(rows: list[dict[str, Any]]) -> None:
    reason_of = {row["pin_id"]: row["reason"] for row in rows}
    dropped = [row for row in rows if row["reason"] == "near_duplicate"]
    assert dropped
    assert all(row["duplicate_of"] < row["pin_id"] and row["similarity"] >= 0.9 for row in dropped)
    assert all(reason_of[row["duplicate_of"]] != "near_duplicate" for row in dropped)


def test_dear_models_are_not_asked_about_pins_that_cheap_ones_dropped(rows: list[dict[str, Any]]) -> None:
    order = ["text_length", "sharpness", "near_duplicate", "relevance", "nsfw", "text_overlay"]
    last = {
        "empty_text": 0,
        "broken_bytes": 0,
        "near_duplicate": 2,
        "unrelated_text": 3,
        "unsafe": 4,
        "text_overlay": 5,
        None: 5,
    }
    for row in rows:
        asked = {score: row[score] is not None for score in order if score in row}
        for score, was_asked in asked.items():
            assert was_asked == (order.index(score) <= last.get(row["reason"], 1)), (row["reason"], score)


def test_reports_agree_with_the_table(tree: Path, rows: list[dict[str, Any]]) -> None:
    figures = json.loads((tree / "out" / "metrics").read_text())
    assert figures["kept"] == sum(row["kept"] for row in rows)
    assert sum(figures["dropped"].values()) == figures["pins"] - figures["kept"]
    assert figures["recall"]["broken_bytes"] == figures["recall"]["empty_text"] == 1
    funnel = list(csv.DictReader((tree / "out" / "funnel").read_text().splitlines()))
    assert [int(row["pins"]) for row in funnel] == [figures["pins"], *figures["left_after"].values()]
    page = (tree / "out" / "report").read_text()
    assert all(f"Dropped: {reason}" in page for reason in figures["dropped"])


def test_a_catalogue_without_truth_gives_the_same_table(tree: Path, tmp_path: Path) -> None:
    tables.write(tmp_path / "truth", [], tables.TRUTH)
    log = run(tree / "pins", tmp_path / "truth", tmp_path / "out")
    assert tables.read(tmp_path / "out" / "kept") == tables.read(tree / "out" / "kept")
    figures = json.loads((tmp_path / "out" / "metrics").read_text())
    assert "recall" not in figures
    assert log.left == list(figures["left_after"].values())


def test_a_filter_that_leaves_nothing_says_why(tree: Path, tmp_path: Path) -> None:
    strict = replace(PARAMS, quality=replace(PARAMS.quality, min_short_side=5000))
    with pytest.raises(ValueError, match=r"the filter left no pin of 72: \{'tiny': \d+, .*'broken_bytes': \d+\}"):
        run(tree / "pins", tree / "truth", tmp_path / "out", strict)
    assert not list((tmp_path / "out").iterdir())


class Length:
    """Scorer: characters of the title."""

    reads = ("title",)
    scores = pa.schema([("text_length", pa.int32()), ("twice", pa.int32())])

    def __call__(self, titles: list[str]) -> list[dict[str, int]]:
        return [{"text_length": len(title), "twice": 2 * len(title)} for title in titles]


def test_a_pass_asks_survivors_only_and_the_first_reason_stays(tree: Path) -> None:
    start_engine(ENGINE)
    chain = FilterChain(tree / "pins")
    first, second, third = chain.scores.index[:3]
    chain.drop("one", chain.scores.index.to_series() == first)
    scores = chain.score("length", Length)
    assert first not in scores.index
    assert list(scores.columns) == ["text_length", "twice"]
    assert chain.passes["length"].pins == SPEC.pins - 1
    chain.drop("two", scores["twice"].loc[[second]] >= 0)
    chain.drop("three", chain.scores["text_length"].isna())
    assert chain.scores.loc[[first, second], "reason"].tolist() == ["one", "two"]
    assert list(chain.score("again", Length, only=chain.survivors.index[:1]).index) == [third]
    assert not len(chain.score("nobody", Length, only=chain.survivors.index[:0]))
