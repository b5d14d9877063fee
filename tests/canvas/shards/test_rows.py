from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from canvas.shards.rows import BucketBatches, ShardRows, group_by_bucket, has_product
from canvas.train.data import Batch
from tests.components.generator_parts import BUCKETS, CHANNELS, write_random_shards

BY_BUCKET = {"a": list(range(12)), "b": list(range(100, 104)), "empty": []}


def read(rows: Sequence[int]) -> Batch:
    return {"pin_id": [str(row) for row in rows], "row": torch.tensor(rows)}


def rows_of(batches: BucketBatches, step: int, rank: int = 0, world: int = 1) -> list[int]:
    return [int(row) for row in batches(step, rank, world)["pin_id"]]


def test_a_batch_is_of_one_bucket_in_proportion_to_its_rows():
    batches = BucketBatches(read, BY_BUCKET, batch_size=4, seed=0)
    buckets = Counter({row >= 100 for row in rows_of(batches, step)}.pop() for step in range(400))
    assert buckets[False] / 400 == pytest.approx(12 / 16, abs=0.07)


def test_within_a_bucket_every_row_is_seen_equally_often():
    batches = BucketBatches(read, BY_BUCKET, batch_size=4, seed=0)
    seen: Counter[int] = Counter()
    turns = [step for step in range(100) if rows_of(batches, step)[0] < 100][:9]  # three epochs of 12 rows
    for step in turns:
        seen.update(rows_of(batches, step))
    assert set(seen.values()) == {3}


def test_a_step_is_the_same_whenever_it_is_asked_for():
    forwards, single = (BucketBatches(read, BY_BUCKET, batch_size=4, seed=3) for _ in range(2))
    steps = [rows_of(forwards, step) for step in range(3000)]
    assert rows_of(single, 2999) == steps[2999]
    assert [rows_of(single, step) for step in range(50)] == steps[:50]
    assert steps[:50] != [rows_of(BucketBatches(read, BY_BUCKET, batch_size=4, seed=4), step) for step in range(50)]


def test_slices_of_two_ranks_are_the_batch_of_one():
    batches = BucketBatches(read, BY_BUCKET, batch_size=4, seed=0)
    for step in range(20):
        assert rows_of(batches, step, 0, 2) + rows_of(batches, step, 1, 2) == rows_of(batches, step)


def test_an_empty_selection_is_refused():
    with pytest.raises(ValueError, match="no pin is left to train on"):
        BucketBatches(read, {"a": []}, batch_size=4, seed=0)


def test_rows_of_shards(tmp_path: Path):
    write_random_shards(tmp_path / "shards")
    shards = ShardRows(tmp_path / "shards")
    assert [row.pin_id for row in shards.index] == [f"p{row:03d}" for row in range(24)]
    assert Counter(row.kind for row in shards.index) == {"product": 16, "scene": 8}
    assert shards.index[5].saves == 5
    assert shards.index[5].promoted
    products = group_by_bucket(filter(has_product, shards.index))
    assert list(products) == ["48x80", "64x64"]
    wide = shards.read_columns(products["48x80"][:3], ["moments", "holes_product"])
    assert wide["moments"].shape == (3, 2 * CHANNELS, *BUCKETS["48x80"])
    assert wide["holes_product"].shape == (3, 2, 1, *BUCKETS["48x80"])


def test_the_squarest_frame_counts_the_cells(tmp_path: Path):
    write_random_shards(tmp_path / "shards")
    assert ShardRows(tmp_path / "shards").cells == 8 * 8


def test_batches_of_many_shards_are_near_each_other_on_disk():
    rows = list(range(0, 640, 2))
    batches = BucketBatches(read, {"a": rows}, batch_size=8, seed=0, shards=[8] * 80)  # 16 shards hold 64 of these
    seen = [rows_of(batches, step) for step in range(40)]
    assert sorted(row for batch in seen for row in batch) == rows
    for first in range(0, 40, 8):
        assert len({row // 8 for batch in seen[first : first + 8] for row in batch}) == 16
    assert len({row // 8 for row in seen[0]}) > 3


def test_what_the_shards_hold_is_known_without_reading_them(tmp_path: Path):
    write_random_shards(tmp_path / "shards")
    for chunk in (tmp_path / "shards").glob("*.bin"):
        chunk.unlink()
    assert len(ShardRows(tmp_path / "shards").index) == 24


def test_every_row_brings_the_embedding_of_its_own_pin(tmp_path: Path):
    write_random_shards(tmp_path / "shards", rows=8)
    rows = ShardRows(tmp_path / "shards", lambda pins: torch.tensor([[float(pin.removeprefix("p"))] for pin in pins]))
    batch = rows.read_columns([3, 1, 3], ["moments"])
    assert torch.equal(batch["image"], torch.tensor([[3.0], [1.0], [3.0]]))
    assert batch["moments"].shape[0] == 3
