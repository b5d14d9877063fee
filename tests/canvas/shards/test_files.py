from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from canvas.shards.files import Shards, write_shards
from canvas.train.distributed import World

ROWS, PER_SHARD = 50, 8


def sample(row: int) -> dict[str, Any]:
    noise = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(row))
    return {"pin_id": f"pin{row}", "row": torch.tensor(row), "latents": noise, "text": noise.half()}


def samples(rows: range) -> Iterator[dict[str, Any]]:
    return map(sample, rows)


def written(place: Path, name: str = "shards") -> Path:
    write_shards(place / name, ROWS, samples, work=place / f"{name}.work", rows_per_shard=PER_SHARD)
    return place / name


def test_samples_come_back_as_they_went_in(tmp_path: Path) -> None:
    shards = Shards(written(tmp_path))
    assert len(shards) == ROWS
    assert shards.sizes == [8, 8, 8, 8, 8, 8, 2]
    for row in (49, 0, 13):
        for name, value in sample(row).items():
            stored = shards[row][name]
            assert torch.equal(stored, value) if isinstance(value, torch.Tensor) else stored == value
    assert shards[3]["text"].dtype == torch.float16


def test_a_table_tells_strings_and_whole_numbers(tmp_path: Path) -> None:
    columns = pq.read_table(Shards(written(tmp_path)).table).to_pydict()
    assert columns == {"pin_id": [f"pin{row}" for row in range(ROWS)], "row": list(range(ROWS))}


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
    (index.parent / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"hold \['pickle'\]"):
        Shards(index.parent)


def test_shards_without_their_table_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    (path / "rows.parquet").unlink()
    with pytest.raises(ValueError, match=r"have no rows\.parquet, which says what is in them: write them again"):
        Shards(path)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_shard_teaches_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    flip(path / "chunk-0-1.bin")
    shards = Shards(path)
    assert int(shards[7]["row"]) == 7  # the others are whole
    for row in (8, 15, 8):
        with pytest.raises(ValueError, match=r"shards/chunk-0-1\.bin is damaged, its bytes are not those"):
            shards[row]
    assert int(shards[16]["row"]) == 16


@pytest.mark.parametrize("name", ["index.json", "rows.parquet", "checksums.json"])
def test_what_describes_the_shards_is_checked_as_well(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    flip(path / name)
    with pytest.raises(ValueError, match=rf"{name} is damaged|\.(bin|json|parquet) is (damaged|missing)"):
        list(map(Shards(path).__getitem__, range(ROWS)))


def test_a_shard_that_was_flipped_before_it_was_joined_is_refused(tmp_path: Path) -> None:
    def dying(rows: range) -> Iterator[dict[str, Any]]:
        if rows.start == PER_SHARD:
            raise KeyboardInterrupt
        return samples(rows)

    path, work = tmp_path / "shards", tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        write_shards(path, ROWS, dying, work=work, rows_per_shard=PER_SHARD)
    flip(next((work / "shard-000000").glob("*.bin")))
    write_shards(path, ROWS, samples, work=work, rows_per_shard=PER_SHARD)
    with pytest.raises(ValueError, match=r"chunk-0-0\.bin is damaged"):
        Shards(path)[0]


def test_shards_of_earlier_releases_have_no_checksums(tmp_path: Path) -> None:
    path = written(tmp_path)
    (path / "checksums.json").unlink()
    assert int(Shards(path)[20]["row"]) == 20


class Rank(World):
    """One of two whose peer is not waited for."""

    def wait(self) -> None:
        pass


def test_ranks_share_the_shards(tmp_path: Path) -> None:
    asked: dict[int, list[range]] = {0: [], 1: []}

    def asking(rank: int) -> Callable[[range], Iterator[dict[str, Any]]]:
        def made(rows: range) -> Iterator[dict[str, Any]]:
            asked[rank].append(rows)
            if rank == 0 and rows.start == PER_SHARD:  # the peer comes in the middle of the second shard
                write_shards(tmp_path / "none", ROWS, asking(1), work=work, rows_per_shard=PER_SHARD, world=peer)
            return samples(rows)

        return made

    own, peer = (Rank(rank, 2, torch.device("cpu")) for rank in (0, 1))
    work = tmp_path / "work"
    write_shards(tmp_path / "shards", ROWS, asking(0), work=work, rows_per_shard=PER_SHARD, world=own)
    assert [rows.start for rows in asked[0]] == [0, 8]
    assert [rows.start for rows in asked[1]] == [16, 24, 32, 40, 48]
    assert not (tmp_path / "none").exists()
    straight = written(tmp_path, "straight")
    shared = tmp_path / "shards"
    assert {p.name: p.read_bytes() for p in shared.iterdir()} == {p.name: p.read_bytes() for p in straight.iterdir()}


def test_two_threads_read_what_one_does(tmp_path: Path) -> None:
    shards = Shards(written(tmp_path))
    rows = [row * 37 % ROWS for row in range(600)]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda order: [int(shards[row]["row"]) for row in order], (rows, rows[::-1])))
    assert both == [rows, rows[::-1]]


def test_joining_that_was_killed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    path, work = tmp_path / "shards", tmp_path / "work"
    with monkeypatch.context() as patched:
        patched.setattr("canvas.shards.files._link", dying)
        with pytest.raises(KeyboardInterrupt):
            write_shards(path, ROWS, samples, work=work, rows_per_shard=PER_SHARD)
    assert not path.exists()
    assert write_shards(path, ROWS, samples, work=work, rows_per_shard=PER_SHARD) == 0
    straight = written(tmp_path, "straight")
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {p.name: p.read_bytes() for p in straight.iterdir()}


def test_shards_of_other_names_are_refused(tmp_path: Path) -> None:
    def changing(rows: range) -> Iterator[dict[str, Any]]:
        return ({**sample(row), "late": torch.zeros(1)} if row >= PER_SHARD else sample(row) for row in rows)

    with pytest.raises(ValueError, match=r"samples of shard 1 are \[.*\], those of shard 0 \[.*\]: all must have"):
        write_shards(tmp_path / "s", ROWS, changing, work=tmp_path / "w", rows_per_shard=PER_SHARD)


def test_no_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples to write"):
        write_shards(tmp_path / "s", 0, samples, work=tmp_path / "w", rows_per_shard=4)
