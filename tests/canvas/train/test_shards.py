from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from canvas.train.shards import ShardBatches, write_shards

ROWS, PER_SHARD = 50, 8


def sample(row: int) -> dict[str, Any]:
    noise = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(row))
    return {"pin_id": f"pin{row}", "row": torch.tensor(row), "latents": noise, "text": noise.half()}


def samples(rows: range) -> Iterator[dict[str, Any]]:
    return map(sample, rows)


def written(place: Path, name: str = "shards") -> Path:
    write_shards(place / name, ROWS, samples, work=place / f"{name}.work", rows_per_shard=PER_SHARD)
    return place / name


def rows_of(batches: ShardBatches, steps: Iterable[int]) -> list[int]:
    return [row for step in steps for row in batches(step, 0, 1)["row"].tolist()]


def test_every_epoch_reads_every_row_once_in_another_order(tmp_path: Path) -> None:
    batches = ShardBatches(written(tmp_path), 10, seed=0, mixed=2)
    first, second = rows_of(batches, range(5)), rows_of(batches, range(5, 10))
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
    assert len({row // PER_SHARD for row in first[: 2 * PER_SHARD - 6]}) <= 3  # near each other on disk


def test_columns_come_back_as_they_went_in(tmp_path: Path) -> None:
    batch = ShardBatches(written(tmp_path), 7, seed=1)(3, 0, 1)
    for at, row in enumerate(batch["row"].tolist()):
        for name, value in sample(row).items():
            column = batch[name][at]
            assert torch.equal(column, value) if isinstance(value, torch.Tensor) else column == value
    assert batch["text"].dtype == torch.float16


def test_a_batch_depends_on_seed_and_step_alone_and_ranks_share_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    one, other = ShardBatches(path, 12, seed=3, mixed=3), ShardBatches(path, 12, seed=3, mixed=3)
    rows_of(one, range(6))
    for step in (17, 4):
        assert rows_of(one, [step]) == rows_of(other, [step])
        halves = [other(step, rank, 2)["row"].tolist() for rank in (0, 1)]
        assert halves[0] + halves[1] == rows_of(one, [step])
    assert rows_of(ShardBatches(path, 12, seed=4, mixed=3), range(4)) != rows_of(one, range(4))


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    one, two = (written(tmp_path, name) for name in ("one", "two"))
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_a_killed_write_continues(tmp_path: Path) -> None:
    asked: list[int] = []

    def dying(rows: range) -> Iterator[dict[str, Any]]:
        for row in rows:
            asked.append(row)
            if row == 20 and asked.count(20) == 1:
                raise KeyboardInterrupt
            yield sample(row)

    path, work = tmp_path / "shards", tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        write_shards(path, ROWS, dying, work=work, rows_per_shard=PER_SHARD)
    assert not path.exists()
    write_shards(path, ROWS, dying, work=work, rows_per_shard=PER_SHARD)
    assert asked == [*range(21), *range(16, ROWS)]
    straight = written(tmp_path, "straight")
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {p.name: p.read_bytes() for p in straight.iterdir()}


@pytest.mark.parametrize("wrong", [{"row": torch.zeros(1)}, {"pin_id": "a", "set": {1}}, {"pin_id": "a", "number": 3}])
def test_what_would_be_pickled_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a training sample needs pin_id, tensors and strings"):
        write_shards(tmp_path / "s", 1, lambda rows: [wrong], work=tmp_path / "w", rows_per_shard=4)


def test_pickled_shards_are_not_read(tmp_path: Path) -> None:
    index = written(tmp_path) / "index.json"
    content = json.loads(index.read_text())
    content["config"]["data_format"][2] = "pickle"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"hold \['pickle'\]"):
        ShardBatches(index.parent, 4, seed=0)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples to write"):
        write_shards(tmp_path / "s", 0, samples, work=tmp_path / "w", rows_per_shard=4)
