"""Two models that differ as planned are told apart; those that do not are not."""

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
    """Scores of `model`: `reward` round 0.5 + shift, in scene `worse_in` 0.3 lower; `growth` likewise."""
    random = np.random.default_rng(0)
    common = random.normal(0, 0.2, items)
    own = np.random.default_rng([seed, len(model)]).normal(0, 0.02, (items, 2))
    found = []
    for item in range(items):
        scene = ("forest", "lobby", "desert at dawn", "rare")[item % 3 if item < items - 1 else 3]
        for place in range(2):
            reward = 0.5 + common[item] + own[item, place] + shift - 0.3 * (scene == worse_in)
            found.append(
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
                    "growth": 1 - reward,
                    "scene_right": float(reward > 0.4),
                }
            )
    return found


def by_name(found: list[Any]) -> dict[str, Any]:
    return {delta.name: delta for delta in found}


def test_scores_are_what_is_no_name() -> None:
    assert list_measures(rows("challenger")) == ["growth", "reward", "scene_right"]
    assert len(select_model([*rows("challenger"), *rows("champion")], "champion")) == 80


@pytest.mark.parametrize(("shift", "expected"), [(0.05, "better"), (-0.05, "worse"), (0.0, "same")])
def test_what_is_planted_is_found(shift: float, expected: str) -> None:
    found = by_name(
        compute_deltas(rows("challenger", shift), rows("champion"), lower_is_better=("growth",), guarded=("reward",))
    )
    assert found["reward"].change == found["growth"].change == expected
    assert found["reward"].guarded
    assert not found["growth"].guarded
    assert found["reward"].difference.mean == pytest.approx(shift, abs=0.01)
    assert found["reward"].challenger - found["reward"].champion == pytest.approx(found["reward"].difference.mean)


def test_a_slice_that_got_worse_is_named_though_the_mean_got_better() -> None:
    challenger, champion = rows("challenger", 0.2, worse_in="desert at dawn"), rows("champion")
    whole = by_name(compute_deltas(challenger, champion, lower_is_better=("growth",)))
    assert whole["reward"].change == "better"
    found = by_name(
        compute_slice_deltas(
            challenger,
            champion,
            ("scene", "category"),
            min_items=5,
            lower_is_better=("growth",),
            guarded=("reward",),
        )
    )
    assert {name: delta.change for name, delta in found.items()} == {
        "reward, desert at dawn": "worse",
        "reward, forest": "better",
        "reward, lobby": "better",
        "reward, Shoes": "better",
    }


def test_seeds_of_one_item_are_one_observation() -> None:
    """Else ten seeds of three items would look like thirty items."""
    challenger = [{**row, "seed": seed} for row in rows("challenger", items=4) for seed in range(10)]
    champion = [{**row, "seed": seed} for row in rows("champion", items=4) for seed in range(10)]
    ten = by_name(compute_deltas(challenger, champion, lower_is_better=()))["reward"].difference
    one = by_name(compute_deltas(rows("challenger", items=4), rows("champion", items=4), lower_is_better=()))[
        "reward"
    ].difference
    assert ten.high - ten.low > 0.5 * (one.high - one.low)


def test_what_is_missing_leaves_only_itself_out() -> None:
    challenger, champion = rows("challenger", 0.05), rows("champion")
    challenger[0]["reward"], champion[3]["reward"] = float("nan"), None
    found = by_name(compute_deltas(challenger, champion, lower_is_better=()))
    assert np.isfinite(found["reward"].challenger)
    assert found["reward"].change == "better"
    for row in challenger:
        row["scene_right"] = float("nan")
    assert "scene_right" not in by_name(compute_deltas(challenger, champion, lower_is_better=()))


def test_without_a_champion() -> None:
    (first, *_), champion = compute_deltas(rows("challenger"), [], lower_is_better=("growth",)), None
    assert (first.change, first.champion, first.difference) == ("new", champion, None)
    assert pair_rows(rows("challenger"), []) == []


def test_pictures_stand_beside_those_of_the_same_seed() -> None:
    challenger, champion = rows("challenger"), rows("champion")
    shown = select_sides(challenger, champion, 6)
    assert len(shown) == 6
    assert len({side.challenger for side in shown}) == 6
    for side in shown:
        assert side.champion is not None
        assert side.champion.decode().split()[1:] == side.challenger.decode().split()[1:]
    assert [side.champion for side in select_sides(challenger, [], 2)] == [None, None]
