"""Training samples in files: litdata chunks, written resumably, read at random, and a table of what is in them.

litdata's own `optimize` starts processes, so its writer is used directly. Samples hold tensors and strings only:
anything else litdata would pickle, which is refused both ways.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter

from canvas.checksums import compute_checksum, read_checksums, verify_file, write_listing
from canvas.train.checkpoint import replace_directory
from canvas.train.distributed import SINGLE_PROCESS, World

Sample = Mapping[str, torch.Tensor | str]
"""One training sample: the same names and shapes for each, `pin_id` among them."""

SAFE_FORMATS = ("str", "tensor", "no_header_tensor")
INDEX = "index.json"
DIGEST = "sha256"
CLAIM_SUFFIX = ".claim"
TABLE = "rows.parquet"
"""Strings and whole numbers of every sample, in order: samples are selected by them without reading the shards."""


def write_shards(
    path: Path,
    rows: int,
    samples: Callable[[range], Iterable[Sample]],
    *,
    work: Path,
    rows_per_shard: int,
    world: World = SINGLE_PROCESS,
) -> int:
    """Write samples 0 .. rows - 1 as shards in `path`, which does not exist yet; return how many had to be made.

    The same samples give the same bytes, and each file's checksum stands beside it. `samples(range(first, last))` makes
    those samples in order. Each finished shard goes into `work`, which belongs to these samples and this rows_per_shard
    alone; a killed call made again asks for what is missing only. The ranks of `world`, which have `work` in common,
    take the next missing shard in turn; `path` is rank 0's. `ValueError` for a sample without pin_id or with anything
    but tensors and strings.
    """
    if rows < 1:
        raise ValueError(f"there are no samples to write into {path}: shards need at least one")
    work.mkdir(parents=True, exist_ok=True)
    parts = {
        work / f"shard-{number:06d}": range(first, min(first + rows_per_shard, rows))
        for number, first in enumerate(range(0, rows, rows_per_shard))
    }
    missing = {part: span for part, span in parts.items() if not part.exists()}
    if world.rank == 0:
        for claim in work.glob(f"*{CLAIM_SUFFIX}"):  # of a call that was killed
            claim.unlink()
        for partial in work.glob(".*.partial"):
            shutil.rmtree(partial)
    world.wait()
    for part, span in missing.items():
        if _claim_part(part):
            _write_part(part, samples(span), rows_per_shard)
    world.wait()
    if world.rank == 0:
        _join_parts(path, list(parts))
    return sum(map(len, missing.values()))


class Shards:
    """The samples of a directory of shards, by their number. Each shard's bytes are compared with its checksum once,
    before a sample of it is read; shards without checksums, of earlier releases, are taken as they are."""

    def __init__(self, path: Path) -> None:
        self._unverified = {path / name: checksum for name, checksum in read_checksums(path).items()}
        self._verify(path / INDEX)
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        if unsafe := [kind for kind in index["config"]["data_format"] if kind.partition(":")[0] not in SAFE_FORMATS]:
            raise ValueError(f"shards {path} hold {unsafe}: only tensors and strings are read, as write_shards writes")
        if not (path / TABLE).exists():
            raise ValueError(f"shards {path} have no {TABLE}, which says what is in them: write them again")
        self._verify(path / TABLE)
        self._dataset = StreamingDataset(str(path), batch_decode=0)  # rows are read at random: a window is wasted
        self._reading = Lock()  # litdata's reader keeps its place: two threads would give each other wrong rows
        self.table = path / TABLE
        self.sizes: list[int] = [chunk["chunk_size"] for chunk in index["chunks"]]
        self._ends = list(accumulate(self.sizes))
        self._chunks = [path / chunk["filename"] for chunk in index["chunks"]]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return the sample. `ValueError`, naming the file, if its shard's bytes are not those that were written."""
        with self._reading:
            self._verify(self._chunks[bisect_right(self._ends, row)])
            sample: dict[str, Any] = self._dataset[row]
        return sample

    def __len__(self) -> int:
        return sum(self.sizes)  # the length that litdata gives is a rank's

    def _verify(self, file: Path) -> None:
        if file in self._unverified:
            verify_file(file, self._unverified[file])
            del self._unverified[file]


def _join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Join shards and their tables under one index; `path` is whole or not there."""
    index = json.loads((parts[0] / INDEX).read_text(encoding="utf-8"))
    chunks, digests = [], []
    with replace_directory(path) as partial:
        with pq.ParquetWriter(partial / TABLE, pq.read_schema(parts[0] / TABLE)) as table:
            for number, part in enumerate(parts):
                part_index = json.loads((part / INDEX).read_text(encoding="utf-8"))
                if part_index["config"] != index["config"]:
                    part_format, first_format = part_index["config"]["data_format"], index["config"]["data_format"]
                    raise ValueError(
                        f"samples of shard {number} are {part_format}, those of shard 0 {first_format}: all must have "
                        f"the same names and types; delete {part.parent}"
                    )
                (chunk,) = part_index["chunks"]
                name = f"chunk-0-{number}.bin"
                _link(part / chunk["filename"], partial / name)
                chunks.append({**chunk, "filename": name})
                digests.append((part / DIGEST).read_text(encoding="utf-8"))
                table.write_table(pq.read_table(part / TABLE))
        content = {"chunks": chunks, "config": index["config"]}
        # litdata keys its cache of remote data by this field: name the content, not the time of writing
        digest = hashlib.sha256(json.dumps([content, digests]).encode()).hexdigest()
        (partial / INDEX).write_text(json.dumps({**content, "updated_at": digest[:16]}), encoding="utf-8")
        checksums = {chunk["filename"]: digest for chunk, digest in zip(chunks, digests, strict=True)}
        write_listing(partial, checksums | {name: compute_checksum(partial / name) for name in (INDEX, TABLE)})


def _claim_part(part: Path) -> bool:
    try:
        part.with_name(part.name + CLAIM_SUFFIX).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _write_part(part: Path, samples: Iterable[Sample], rows_per_shard: int) -> None:
    # A rank of a killed call may still be writing its own.
    with replace_directory(part, f".{os.getpid()}") as partial:
        writer = BinaryWriter(str(partial), chunk_size=rows_per_shard)
        rows = []
        for at, sample in enumerate(samples):
            others = {
                key: type(value).__name__ for key, value in sample.items() if not isinstance(value, torch.Tensor | str)
            }
            if others or "pin_id" not in sample:
                raise ValueError(
                    f"a training sample needs pin_id, tensors and strings: this has {sorted(sample)}, {others}"
                )
            writer[at] = dict(sample)
            rows.append(_build_row(sample))
        writer.done()
        (index_file,) = partial.glob(f"*.{INDEX}")  # of this rank: `merge` would wait for the others'
        index_file.rename(partial / INDEX)
        (chunk,) = partial.glob("*.bin")
        (partial / DIGEST).write_text(compute_checksum(chunk), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows), partial / TABLE)


def _build_row(sample: Sample) -> dict[str, Any]:
    """Return the sample's row of the table: its strings and whole numbers."""
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else value
        for name, value in sample.items()
        if isinstance(value, str) or value.dtype == torch.int64
    }


def _link(source: Path, target: Path) -> None:
    """Link the file, or copy it where the two places are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
