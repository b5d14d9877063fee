"""Two models that differ as planned are distinguished; those that do not are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.generator.comparison import (
    compute_deltas,
    compute_slice_deltas,
    list_measures,
    pair_rows,
    select_model,
    select_sides,
)

Row = dict[str, Any]


def rows(model: str, shift: float = 0.0, worse_in: str = "", items: int = 40, seed: int = 0) -> list[Row]:
    """Scores of `model`: `reward` round 0.5 + shift, in scene `worse_in` 0.3 lower; `erosion` likewise."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.2, items)
    own = np.random.default_rng([seed, len(model)]).normal(0, 0.02, (items, 2))
    scores = []
    for item in range(items):
        scene = ("forest", "lobby", "desert at dawn", "rare")[item % 3 if item < items - 1 else 3]
        for place in range(2):
            reward = 0.5 + common[item] + own[item, place] + shift - 0.3 * (scene == worse_in)
            scores.append(
                {
                    "candidate_id": f"{model}{item}{place}",
                    "item_id": f"i{item:02d}",
                    "pin_id": f"p{item // 4}",
                    "category": "Shoes" if item % 2 else None,
                    "prompt": f"in the {scene}",
                    "scene": scene,
                    "seed": place,
                    "model": model,
                    "digest": model,
                    "image": f"{model} {item} {place}".encode(),
                    "reward": reward,
                    "erosion": 1 - reward,
                    "scene_right": float(reward > 0.4),
                }
            )
    return scores


def by_name(deltas: list[Any]) -> dict[str, Any]:
    return {delta.name: delta for delta in deltas}


def test_measures_are_numbers_that_identify_no_candidate() -> None:
    assert list_measures(rows("challenger")) == ["erosion", "reward", "scene_right"]
    assert len(select_model([*rows("challenger"), *rows("champion")], "champion")) == 80


@pytest.mark.parametrize(("shift", "expected"), [(0.05, "better"), (-0.05, "worse"), (0.0, "same")])
def test_a_planted_difference_is_detected(shift: float, expected: str) -> None:
    deltas = by_name(compute_deltas(rows("challenger", shift), rows("champion"), guarded=("reward",)))
    assert deltas["reward"].change == deltas["erosion"].change == expected
    assert deltas["reward"].guarded
    assert not deltas["erosion"].guarded
    assert deltas["reward"].difference.mean == pytest.approx(shift, abs=0.01)
    assert deltas["reward"].challenger - deltas["reward"].champion == pytest.approx(deltas["reward"].difference.mean)


def test_a_slice_that_got_worse_is_named_though_the_mean_got_better() -> None:
    challenger, champion = rows("challenger", 0.2, worse_in="desert at dawn"), rows("champion")
    whole = by_name(compute_deltas(challenger, champion))
    assert whole["reward"].change == "better"
    deltas = by_name(
        compute_slice_deltas(
            challenger,
            champion,
            ("scene", "category"),
            min_items=5,
            guarded=("reward",),
        )
    )
    assert {name: delta.change for name, delta in deltas.items()} == {
        "reward, desert at dawn": "worse",
        "reward, forest": "better",
        "reward, lobby": "better",
        "reward, Shoes": "better",
    }


def test_seeds_of_one_item_are_one_observation() -> None:
    """Else ten seeds of three items would look like thirty items."""
    challenger = [{**row, "seed": seed} for row in rows("challenger", items=4) for seed in range(10)]
    champion = [{**row, "seed": seed} for row in rows("champion", items=4) for seed in range(10)]
    ten = by_name(compute_deltas(challenger, champion))["reward"].difference
    one = by_name(compute_deltas(rows("challenger", items=4), rows("champion", items=4)))["reward"].difference
    assert ten.high - ten.low > 0.5 * (one.high - one.low)


def test_a_missing_score_leaves_only_itself_out() -> None:
    challenger, champion = rows("challenger", 0.05), rows("champion")
    challenger[0]["reward"], champion[3]["reward"] = float("nan"), None
    deltas = by_name(compute_deltas(challenger, champion))
    assert np.isfinite(deltas["reward"].challenger)
    assert deltas["reward"].change == "better"
    for row in challenger:
        row["scene_right"] = float("nan")
    assert "scene_right" not in by_name(compute_deltas(challenger, champion))


def test_without_a_champion() -> None:
    (first, *_), champion = compute_deltas(rows("challenger"), []), None
    assert (first.change, first.champion, first.difference) == ("new", champion, None)
    assert pair_rows(rows("challenger"), []) == []


def test_images_stand_beside_those_of_the_same_seed() -> None:
    challenger, champion = rows("challenger"), rows("champion")
    sides = select_sides(challenger, champion, 6)
    assert len(sides) == 6
    assert len({side.challenger for side in sides}) == 6
    for side in sides:
        assert side.champion is not None
        assert side.champion.decode().split()[1:] == side.challenger.decode().split()[1:]
    assert [side.champion for side in select_sides(challenger, [], 2)] == [None, None]
