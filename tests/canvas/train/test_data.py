from __future__ import annotations

import threading

import pytest
import torch

from canvas.train.data import Batch, Order, PrefetchedBatches, TensorBatches, pin_batch, select_batch_rows

ROWS = 10


def batches(batch_size: int, seed: int = 0) -> TensorBatches:
    return TensorBatches({"pin_id": [f"p{row}" for row in range(ROWS)], "row": torch.arange(ROWS)}, batch_size, seed)


def rows(data: TensorBatches, steps: int) -> list[int]:
    return [row for step in range(steps) for row in data(step, 0, 1)["row"].tolist()]


def test_every_epoch_sees_every_row_once_in_another_order() -> None:
    seen = rows(batches(4), 5)  # two epochs, the third batch in both
    assert sorted(seen[:ROWS]) == sorted(seen[ROWS:]) == list(range(ROWS))
    assert seen[:ROWS] != seen[ROWS:]


def test_columns_stay_together() -> None:
    batch = batches(4)(7, 0, 1)
    assert batch["pin_id"] == [f"p{row}" for row in batch["row"].tolist()]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    data, other = batches(4), batches(4)
    for step in (9, 2, 9):
        assert torch.equal(data(step, 0, 1)["row"], other(step, 0, 1)["row"])
    assert rows(batches(4, seed=1), 5) != rows(batches(4, seed=2), 5)


@pytest.mark.parametrize("world", [2, 4])
def test_slices_of_the_ranks_make_the_batch(world: int) -> None:
    data = batches(4)
    for step in range(6):
        parts = [data(step, rank, world)["row"] for rank in range(world)]
        assert torch.equal(torch.cat(parts), data(step, 0, 1)["row"])


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert torch.equal(
        batches(25)(0, 0, 1)["row"].bincount(minlength=ROWS).clamp(2, 3), batches(25)(0, 0, 1)["row"].bincount()
    )


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 4: it must be a multiple of the 3 processes"):
        batches(4)(0, 0, 3)


@pytest.mark.parametrize(
    "columns",
    [
        {"row": torch.arange(3)},
        {"pin_id": [], "row": torch.arange(0)},
        {"pin_id": ["a", "b"], "row": torch.arange(3)},
    ],
)
def test_columns_must_fit_each_other(columns: dict[str, torch.Tensor | list[str]]) -> None:
    with pytest.raises(ValueError, match="must be of one length above 0 and hold pin_id"):
        TensorBatches(columns, 2, 0)


def test_prefetching_reads_ahead_and_changes_nothing() -> None:
    data, read = batches(4), threading.Event()

    def watched(step: int, rank: int, world: int) -> Batch:
        if step == 4:
            read.set()
        return data(step, rank, world)

    ahead = PrefetchedBatches(watched)
    assert torch.equal(ahead(3, 0, 1)["row"], data(3, 0, 1)["row"])
    assert read.wait(5)
    for step in (4, 5, 9, 0):
        assert torch.equal(ahead(step, 0, 1)["row"], data(step, 0, 1)["row"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU pins them")
def test_without_a_gpu_batches_are_not_copied() -> None:
    batch = {"pin_id": ["a"], "pixels": torch.zeros(1)}
    assert pin_batch(batch) is batch


def test_prefetching_passes_an_error_on() -> None:
    def broken(step: int, rank: int, world: int) -> Batch:
        if step == 1:
            raise ValueError("row 5 is broken")
        return batches(4)(step, rank, world)

    ahead = PrefetchedBatches(broken)
    ahead(0, 0, 1)
    with pytest.raises(ValueError, match="row 5 is broken"):
        ahead(1, 0, 1)


SHARDS = [8, 8, 0, 8, 8, 8, 8, 2]


def test_an_epoch_goes_through_a_few_shards_at_a_time() -> None:
    order = Order(SHARDS, seed=0, mixed=2)
    first, second = (
        [row for step in steps for row in order.select_rows(10, step, 0, 1).tolist()]
        for steps in (range(5), range(5, 10))
    )
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first[:10] != sorted(first[:10])
    shards = [row // 8 for row in first]
    assert shards != sorted(shards)
    assert all(len(set(shards[place : place + 10])) <= 4 for place in range(40))  # of two groups, where they meet


def test_an_order_is_a_function_of_seed_and_step_and_ranks_share_it() -> None:
    one, other = (Order(SHARDS, seed=3, mixed=3) for _ in range(2))
    for step in range(6):
        one.select_rows(12, step, 0, 1)
    for step in (17, 4):
        assert one.select_rows(12, step, 0, 1).tolist() == other.select_rows(12, step, 0, 1).tolist()
        halves = [other.select_rows(12, step, rank, 2).tolist() for rank in (0, 1)]
        assert halves[0] + halves[1] == one.select_rows(12, step, 0, 1).tolist()
    assert Order(SHARDS, seed=4, mixed=3).select_rows(12, 0, 0, 1).tolist() != one.select_rows(12, 0, 0, 1).tolist()


def test_a_few_shards_are_in_the_order_of_rows_in_memory() -> None:
    """So that small data is mixed as a whole."""
    assert Order(SHARDS, seed=5).select_rows(20, 7, 0, 1).tolist() == select_batch_rows(50, 20, 5, 7, 0, 1).tolist()
