"""What people said of images, as the reward model's training has it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import encode_png
from canvas.pins.masks import encode_mask
from canvas.reward.batches import ComparisonBatches, HumanBatches, MixedBatches
from canvas.reward.comparisons import sample_comparisons
from canvas.reward.human_comparisons import HumanComparison, read_human_comparisons
from canvas.reward.spec import HEADS
from tests.canvas.reward.test_comparisons import KINDS, TOKENIZE, scenes, views

SIDE = 64
SPLITS = {"seen": "train", "view": "unseen_view", "p13": "unseen_product", "p15": "unseen_product"}


def png(level: int) -> bytes:
    return encode_png(Image.new("RGB", (40, 30), (level, level, 255 - level)))


def row(pin: str, **changed: Any) -> dict[str, Any]:
    """Both images of `pin` were compared by three people, two of whom took the first."""
    mask = np.zeros((30, 40), bool)
    mask[:, :20] = True
    return (
        dict.fromkeys(tables.PREFERENCES.names)
        | {"pin_id": pin, "prompt": "mug, in a forest", "first": f"{pin}a", "second": f"{pin}b", "judgments": 3}
        | {"preference": 2 / 3, "product": png(90), "mask": encode_mask(mask)}
        | {"first_image": png(10), "second_image": png(200)}
        | changed
    )


def known(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[HumanComparison], list[HumanComparison]]:
    pins = [dict.fromkeys(tables.PINS.names) | {"pin_id": pin, "split": split} for pin, split in SPLITS.items()]
    tables.write(folder / "pins", [pa.Table.from_pylist(pins, tables.PINS)], tables.PINS)
    tables.write(folder / "preferences", [pa.Table.from_pylist(rows, tables.PREFERENCES)], tables.PREFERENCES)
    comparisons = read_human_comparisons(folder / "preferences", folder / "pins", ["in a cave"], side=SIDE)
    return list(comparisons.train), list(comparisons.held_out)


def mixed(folder: Path, share: float, human: int = 5, batch_size: int = 8) -> MixedBatches:
    learnt, _ = known(folder, [row("seen", first=f"a{number}", first_image=png(number)) for number in range(human)])
    drawn = sample_comparisons(views(), scenes(), KINDS, 24, 0)
    synthetic = ComparisonBatches(drawn, views(), scenes(), tokenize=TOKENIZE, batch_size=batch_size, seed=3)
    return MixedBatches(synthetic, HumanBatches(learnt, tokenize=TOKENIZE), share)


def test_half_of_the_held_out_products_are_held_out(tmp_path: Path) -> None:
    learnt, held_out = known(tmp_path, [row(pin) for pin in (*SPLITS, "gone")])
    assert [one.pin_id for one in learnt] == ["seen", "view", "p13"]
    assert [one.pin_id for one in held_out] == ["p15"]


def test_held_out_backgrounds_are_scored_and_not_learnt(tmp_path: Path) -> None:
    rows = [row(pin, prompt="mug, in a cave") for pin in SPLITS] + [row("seen", first="other")]
    learnt, held_out = known(tmp_path, rows)
    assert [(one.pin_id, one.prompt) for one in learnt] == [("seen", "mug, in a forest")]
    assert [one.pin_id for one in held_out] == ["p15"]


def test_a_product_is_never_on_both_sides(tmp_path: Path) -> None:
    for folder, product in (("one", "mug-1"), ("two", "mug-2"), ("three", "mug-3")):
        (tmp_path / folder).mkdir()
        learnt, held_out = known(tmp_path / folder, [row(pin, product_id=product) for pin in ("p13", "p15")])
        assert sorted((len(learnt), len(held_out))) == [0, 2]


def test_compared_images_ask_which_is_better_and_images_alone_how_good(tmp_path: Path) -> None:
    alone = row("view", second=None, second_image=None, preference=1.0, defects=0.0)
    learnt, _ = known(tmp_path, [row("seen", fidelity=0.5), alone])
    batch = HumanBatches(learnt, tokenize=TOKENIZE).batch(learnt)
    asked = {
        name: [
            {head: float(value) for head, value in zip(HEADS, values, strict=True) if not math.isnan(value)}
            for values in torch.as_tensor(batch[name])
        ]
        for name in ("preferred", "first_good", "second_good")
    }
    both = pytest.approx(2 / 3)
    assert asked["preferred"] == [{"fidelity": 0.5, "overall": both, "prompted": both}, {}]
    assert asked["first_good"] == [{}, {"defects": 0.0, "overall": 1.0, "prompted": 1.0}]
    assert asked["second_good"] == [{}, {}]
    first, second, originals = (torch.as_tensor(batch[name]) for name in ("first", "second", "originals"))
    assert first.shape == second.shape == originals.shape == (2, 3, SIDE, SIDE)
    assert (first[0, 0, 0, 0], second[0, 0, 0, 0], second[1, 0, 0, 0], originals[0, 0, 0, 0]) == (10, 200, 10, 90)
    masks = torch.as_tensor(batch["masks"])
    assert masks[0, 0, :, : SIDE // 2].all()
    assert not masks[0, 0, :, SIDE // 2 :].any()


@pytest.mark.parametrize(("share", "each"), [(0.25, 2), (0.5, 4), (0.3, 2), (1.0, 8), (0.125, 1)])
def test_a_share_of_every_batch_is_human_and_each_comparison_as_often(tmp_path: Path, share: float, each: int) -> None:
    batches, seen = mixed(tmp_path, share), Counter[int]()
    for step in range(5):
        batch = batches(step, 0, 1)
        assert len(batch["pin_id"]) == 8
        human = [place for place, pin in enumerate(batch["pin_id"]) if pin == "seen"]
        assert len(human) == each
        assert all(torch.as_tensor(batch["second_good"])[place].isnan().all() for place in human)
        seen.update(int(torch.as_tensor(batch["first"])[place, 0, 0, 0]) for place in human)
    assert set(seen.values()) <= {each}  # five comparisons in five batches of `each`


def test_the_slices_of_ranks_are_the_batch_of_one(tmp_path: Path) -> None:
    batches = mixed(tmp_path, 0.3)
    for step in range(3):
        whole = batches(step, 0, 1)
        slices = [batches(step, rank, 2) for rank in range(2)]
        assert whole["pin_id"] == [pin for part in slices for pin in part["pin_id"]]
        for name in whole.keys() - {"pin_id"}:
            parts = torch.cat([torch.as_tensor(part[name]) for part in slices])
            assert torch.equal(torch.as_tensor(whole[name]).nan_to_num(-1), parts.nan_to_num(-1)), name
