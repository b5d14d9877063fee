"""Rows of training shards by what is known of their pins, and batches of chosen rows, one shape a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

import numpy as np
import pyarrow.parquet as pq
import torch

from canvas.shards.files import Shards
from canvas.train.data import Batch, Order


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One sample of the shards, without its tensors."""

    row: int
    pin_id: str
    split: str
    view: int  # of the pin; 0: as it is
    kind: str  # "product" or "scene"
    bucket: str  # shape of its tensors
    promoted: bool
    impressions: int
    saves: int
    clicks: int


def is_any_row(row: ShardRow) -> bool:
    """All of them."""
    return True


def has_product(row: ShardRow) -> bool:
    """Those with a product whose mask was not rejected."""
    return row.kind == "product"


class ShardRows:
    """The samples of a directory of shards, read at random."""

    def __init__(self, path: Path) -> None:
        self._shards = Shards(path)
        columns = ["pin_id", "split", "view", "kind", "bucket", "promoted", "engagement"]
        told = pq.read_table(self._shards.table, columns=columns).to_pydict()
        self.index = [
            ShardRow(row, pin_id, intern(split), int(view), intern(kind), intern(bucket), promoted == "1", *engagement)
            for row, (pin_id, split, view, kind, bucket, promoted, engagement) in enumerate(
                zip(*(told[column] for column in columns), strict=True)
            )
        ]

    def get_shape(self, column: str) -> torch.Size:
        """Of that column in the first sample."""
        shape: torch.Size = self._shards[0][column].shape
        return shape

    def read_batch(self, rows: Sequence[int], columns: Mapping[str, str]) -> Batch:
        """Those rows, of one bucket; `columns` maps the batch's names to the shards', `pin_id` comes by itself."""
        samples = {row: self._shards[row] for row in sorted(set(rows))}  # in the order of the disk
        tensors = {name: torch.stack([samples[row][stored] for row in rows]) for name, stored in columns.items()}
        return {"pin_id": [samples[row]["pin_id"] for row in rows], **tensors}

    def build_batches(
        self, rows: Iterable[ShardRow], columns: Mapping[str, str], batch_size: int, seed: int
    ) -> BucketBatches:
        """Batches of those rows, whose neighbours in time are neighbours on disk."""
        return BucketBatches(
            lambda chosen: self.read_batch(chosen, columns),
            group_by_bucket(rows),
            batch_size,
            seed,
            shards=self._shards.sizes,
        )


class ImageRows(ShardRows):
    """Shards joined to embeddings by pin: every batch has a column `image` (B, E)."""

    def __init__(self, path: Path, embedding: Callable[[Sequence[str]], torch.Tensor]) -> None:
        super().__init__(path)
        self._embedding = embedding

    def read_batch(self, rows: Sequence[int], columns: Mapping[str, str]) -> Batch:
        batch = super().read_batch(rows, columns)
        pins = batch["pin_id"]
        assert isinstance(pins, list)
        return {**batch, "image": self._embedding(pins)}


def group_by_bucket(rows: Iterable[ShardRow]) -> dict[str, list[int]]:
    """Row numbers by bucket, buckets by name."""
    found: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: (row.bucket, row.row)):
        found.setdefault(row.bucket, []).append(row.row)
    return found


class BucketBatches:
    """Batches of one bucket each, drawn in proportion to the buckets' rows; within a bucket every row is seen equally
    often. Bucket and rows of a step are pure functions of (seed, step), so resuming is exact. `shards`: of how many
    rows each file is, if rows lie in files; a bucket's rows must ascend then."""

    def __init__(
        self,
        read: Callable[[Sequence[int]], Batch],
        buckets: Mapping[str, Sequence[int]],
        batch_size: int,
        seed: int,
        shards: Sequence[int] | None = None,
    ) -> None:
        if not any(buckets.values()):
            raise ValueError("no pin is left to train on: the selection is empty, loosen it or bring more pins")
        self._read = read
        self._rows = [np.asarray(rows) for rows in buckets.values() if rows]
        sizes = np.array([len(rows) for rows in self._rows])
        ends = np.cumsum(shards) if shards is not None else np.array([np.inf])
        self._orders = [
            Order(np.bincount(np.searchsorted(ends, rows, side="right")).tolist(), seed + bucket)
            for bucket, rows in enumerate(self._rows)
        ]
        self._ends = np.cumsum(sizes) / sizes.sum()
        self._batch_size = batch_size
        self._seed = seed
        self._turns = np.zeros(0, np.int64)  # the bucket of each step so far

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        bucket, number = self.find_turn(step)
        chosen = self._orders[bucket].select_rows(self._batch_size, number, rank, world)
        return self._read(self._rows[bucket][chosen].tolist())

    def find_turn(self, step: int) -> tuple[int, int]:
        """The bucket of `step`, and how many earlier steps had it."""
        if step >= len(self._turns):
            draw = np.random.Generator(np.random.Philox(key=[self._seed, 0])).random(max(1024, 2 * step))
            self._turns = np.minimum(np.searchsorted(self._ends, draw, side="right"), len(self._rows) - 1)
        turn = int(self._turns[step])
        return turn, int((self._turns[:step] == turn).sum())
