"""Training samples in files: litdata chunks, written resumably, read at random.

litdata reads them from a directory or an object store; its own `optimize` starts processes, so its writer is used
directly. Samples hold tensors and strings only: anything else litdata would pickle, which is refused both ways.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter

from canvas.train.data import Batch, epoch_places

Sample = Mapping[str, torch.Tensor | str]
"""One training sample: the same names and shapes for each, `pin_id` among them."""

SAFE_FORMATS = ("str", "tensor", "no_header_tensor")
INDEX = "index.json"


def write_shards(
    path: Path, rows: int, samples: Callable[[range], Iterable[Sample]], *, work: Path, rows_per_shard: int
) -> None:
    """Write samples 0 .. rows - 1 as shards in `path`, which does not exist yet; the same samples, the same bytes.

    `samples(range(first, last))` makes those samples in order. Each finished shard goes into `work`, which belongs to
    these samples and this rows_per_shard alone; a killed call made again asks for what is missing only. `ValueError`
    for a sample without pin_id or with anything but tensors and strings.
    """
    if rows < 1:
        raise ValueError("there are no samples to write: shards need at least one")
    work.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, first in enumerate(range(0, rows, rows_per_shard)):
        part = work / f"shard-{number:06d}"
        if not part.exists():
            _write_part(part, samples(range(first, min(first + rows_per_shard, rows))), rows_per_shard)
        parts.append(part)
    path.mkdir()
    index = json.loads((parts[0] / INDEX).read_text(encoding="utf-8"))
    chunks = []
    for number, part in enumerate(parts):
        own = json.loads((part / INDEX).read_text(encoding="utf-8"))
        if own["config"] != index["config"]:
            raise ValueError(f"samples of shard {number} differ in names or types from those of shard 0")
        (chunk,) = own["chunks"]
        name = f"chunk-0-{number}.bin"
        _link(part / chunk["filename"], path / name)
        chunks.append({**chunk, "filename": name})
    content = {"chunks": chunks, "config": index["config"]}
    # litdata keys its cache of remote data by this field: name the content, not the time of writing
    digest = hashlib.sha256(json.dumps([content, [_digest(path / c["filename"]) for c in chunks]]).encode()).hexdigest()
    (path / INDEX).write_text(json.dumps({**content, "updated_at": digest[:16]}), encoding="utf-8")


class ShardBatches:
    """Batches from shards in `path` (a directory, or a URL that litdata reads), at random yet near each other on disk.

    An epoch goes through the shards in an order of its own, `mixed` shards at a time, whose rows are permuted
    together. The order is a pure function of (seed, step): resuming reads nothing twice. Memory holds one such order.
    """

    def __init__(self, path: Path | str, batch_size: int, seed: int, mixed: int = 16) -> None:
        self.dataset = StreamingDataset(str(path), batch_decode=0)  # rows are read at random: a window is wasted
        assert self.dataset.input_dir.path is not None  # where the index of local or remote shards is by now
        index = json.loads((Path(self.dataset.input_dir.path) / INDEX).read_text(encoding="utf-8"))
        if unsafe := [kind for kind in index["config"]["data_format"] if kind.partition(":")[0] not in SAFE_FORMATS]:
            raise ValueError(f"shards {path} hold {unsafe}: only tensors and strings are read, as write_shards writes")
        self.sizes = np.array([chunk["chunk_size"] for chunk in index["chunks"]])
        self.rows = int(self.sizes.sum())  # the length that litdata gives is a rank's
        self.batch_size = batch_size
        self.seed = seed
        self.mixed = mixed
        self._order = lru_cache(maxsize=4)(self._order_of)
        self._bounds = lru_cache(maxsize=2)(self._bounds_of)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        places = epoch_places(self.rows, self.batch_size, step, rank, world)
        rows = [self.row(int(epoch), int(place)) for epoch, place in places]
        read = {row: self.dataset[row] for row in sorted(set(rows))}  # in the order of the disk
        samples = [read[row] for row in rows]
        return {
            name: torch.stack([sample[name] for sample in samples])
            if isinstance(samples[0][name], torch.Tensor)
            else [sample[name] for sample in samples]
            for name in samples[0]
        }

    def row(self, epoch: int, place: int) -> int:
        """The row at `place` of `epoch`."""
        _, bounds = self._bounds(epoch)
        group = int(np.searchsorted(bounds, place, side="right")) - 1
        return int(self._order(epoch, group)[place - bounds[group]])

    def _bounds_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of the shards, and the place at which each group of `mixed` shards starts."""
        shards = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.sizes))
        ends = np.cumsum(self.sizes[shards])
        return shards, np.append(0, ends[self.mixed - 1 :: self.mixed])

    def _order_of(self, epoch: int, group: int) -> np.ndarray:
        shards, _ = self._bounds(epoch)
        starts = np.cumsum(self.sizes) - self.sizes
        members = shards[group * self.mixed : (group + 1) * self.mixed]
        rows = np.concatenate([np.arange(starts[shard], starts[shard] + self.sizes[shard]) for shard in members])
        key = np.random.SeedSequence([self.seed, epoch, group]).generate_state(2, np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(rows)


def _write_part(part: Path, samples: Iterable[Sample], rows_per_shard: int) -> None:
    partial = part.with_name(f".{part.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    writer = BinaryWriter(str(partial), chunk_size=rows_per_shard)
    for at, sample in enumerate(samples):
        writer[at] = _checked(sample)
    writer.done()
    writer.merge(1)
    partial.rename(part)


def _checked(sample: Sample) -> dict[str, Any]:
    wrong = {name: type(value).__name__ for name, value in sample.items() if not isinstance(value, torch.Tensor | str)}
    if wrong or "pin_id" not in sample:
        raise ValueError(f"a training sample needs pin_id, tensors and strings: this has {sorted(sample)}, {wrong}")
    return dict(sample)


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the two places are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
