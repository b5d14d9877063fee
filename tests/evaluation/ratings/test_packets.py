from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from canvas.pins.images import encode_png
from canvas.pins.tables import QUESTIONS
from components.sample_candidates import sample_candidates
from evaluation.ratings.judgments import RatingRules
from evaluation.ratings.packets import PacketSpec, RatingItem, build_items, draw_sheet, list_questions, write_packet
from lifecycle.declare.params import load_sections, read_section, read_stage_params
from tests.components.mugs import ROOT

RULES = RatingRules(min_checks=0, max_failed_checks=0.2, max_contradictions=0.5)


def spec(**changed: Any) -> PacketSpec:
    given: dict[str, Any] = {
        "pairs": 20,
        "repeats": 4,
        "checks": 3,
        "singles": 0,
        "seed": 0,
        "rules": RULES,
        "pair_questions": ("preference",),
        "single_questions": (),
    }
    return PacketSpec(**given | changed)


def row(item: int, model: str, size: tuple[int, int] = (30, 20)) -> dict[str, Any]:
    return {
        "candidate_id": f"{item}.{model}",
        "item_id": f"item-{item:02d}",
        "pin_id": f"pin-{item:02d}",
        "prompt": "in a forest",
        "seed": item,
        "model": model,
        "digest": model if model in ("challenger", "champion") else None,
        "image": encode_png(Image.new("RGB", size, (item, 0, 0) if model == "challenger" else (0, item, 9))),
    }


def candidates(*models: str, items: int = 30) -> list[dict[str, Any]]:
    return [row(item, model) for model in ("challenger", *models) for item in range(items)]


def test_sides_are_shuffled_and_repeats_swapped() -> None:
    items = build_items(candidates("champion", "paste", "spoiled"), spec())
    pairs, repeats, checks = items[:20], items[20:24], items[24:]
    lefts = [one.first["model"] for one in pairs]
    assert 4 < lefts.count("challenger") < 16
    assert all(
        one.second is not None and {one.first["model"], one.second["model"]} == {"challenger", "champion"}
        for one in pairs
    )
    assert all(one.second is not None and one.first["item_id"] == one.second["item_id"] for one in items)
    assert len({one.first["item_id"] for one in pairs}) == 20
    for again in repeats:
        assert again.repeat_of is not None
        assert (again.first, again.second) == (pairs[again.repeat_of].second, pairs[again.repeat_of].first)
    assert [one.expected for one in checks] == [float(one.first["model"] == "challenger") for one in checks]
    # A check does not show what a pair asks about, where there are others.
    assert not {one.first["item_id"] for one in checks} & {one.first["item_id"] for one in pairs}


def test_another_seed_is_another_packet() -> None:
    rows = candidates("champion", "spoiled")
    first, second = ([one.first["candidate_id"] for one in build_items(rows, spec(seed=seed))] for seed in (0, 1))
    assert first != second
    assert first == [one.first["candidate_id"] for one in build_items(list(reversed(rows)), spec())]


def test_without_a_champion_the_challenger_meets_pasted_products() -> None:
    items = build_items(candidates("paste"), spec(checks=3))
    assert len(items) == 24  # nothing is spoiled, so there are no checks
    assert {one.second["model"] for one in items if one.second} == {"challenger", "paste"}


def test_pictures_alone_are_of_both_models_and_have_their_own_questions(tmp_path: Path) -> None:
    wanted = spec(pairs=2, repeats=0, checks=0, singles=3, single_questions=("defects",))
    rows = candidates("champion", items=5)
    originals = {one["pin_id"]: Image.new("RGB", (20, 30), "white") for one in rows}
    assert write_packet(rows, originals, wanted, tmp_path / "packet", tmp_path / "key") == 8
    key = json.loads((tmp_path / "key" / "key.json").read_text())
    alone = [one for one in key["items"].values() if one["kind"] == "absolute"]
    assert sorted(one["first_model"] for one in alone) == ["challenger"] * 3 + ["champion"] * 3
    assert {one["second"] for one in alone} == {None}
    assert [(one["kind"], one["name"]) for one in key["questions"]] == [
        ("pairwise", "preference"),
        ("absolute", "defects"),
    ]
    assert len(list_questions(spec())) == 1


def test_the_demo_asks_people_every_question() -> None:
    packet = read_stage_params(sample_candidates, load_sections("demo", ROOT))["sample_candidates"].packet
    asked = [(question["kind"], question["name"]) for question in list_questions(packet)]
    assert asked[0] == ("pairwise", "preference")
    assert {name for _, name in asked} == set(QUESTIONS)
    assert packet.singles > 0


def test_a_smaller_picture_does_not_give_the_champion_away() -> None:
    """Both are brought to the smaller one's sharpness: what is left of a pixel pattern is grey."""
    fine = Image.effect_noise((200, 200), 100).convert("RGB")
    mine = row(1, "challenger") | {"image": encode_png(fine)}
    old = row(1, "champion", (20, 20))
    beside, alone = (
        draw_sheet(fine, RatingItem(mine, old)),
        draw_sheet(fine, RatingItem(mine, row(1, "champion", (200, 200)))),
    )

    def contrast(picture: Image.Image) -> float:
        left = picture.convert("L").crop((60, picture.height - 300, 360, picture.height - 60))
        return float(max(abs(v - 128) for v in left.resize((30, 30), Image.Resampling.NEAREST).tobytes()))

    assert contrast(beside) < 0.6 * contrast(alone)


def test_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="sample candidates of both"):
        build_items(candidates(), spec())


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'seed' .* is -1: it must be 0 or more"):
        read_section(PacketSpec, "packet", {"packet": asdict(spec(seed=-1))})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repeats": 21}, "no more repeats than pairs"),
        ({"pair_questions": ("beauty",)}, "not beauty"),
        ({"pair_questions": ()}, "at least one question"),
        ({"singles": 1}, "at least one question"),
    ],
)
def test_specs_that_cannot_be(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**changed)
