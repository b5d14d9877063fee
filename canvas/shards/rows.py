"""Rows of training shards, their selection by what is known of their pins, and batches of one shape each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch

from canvas.shards.files import Shards
from canvas.shards.spec import EngagementRule
from canvas.train.data import B, Order

T = TypeVar("T")


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
    """Select all rows."""
    return True


def has_product(row: ShardRow) -> bool:
    """Select rows with a product whose mask was not rejected."""
    return row.kind == "product"


class ShardRows:
    """The samples of a directory of shards, read at random; with `read_embeddings` also a column `image` (B, E)."""

    def __init__(self, path: Path, read_embeddings: Callable[[Sequence[str]], torch.Tensor] | None = None) -> None:
        self._shards = Shards(path)
        self._read_embeddings = read_embeddings
        self.sizes = self._shards.sizes
        columns = ["pin_id", "split", "view", "kind", "bucket", "promoted", "engagement"]
        table = pq.read_table(self._shards.table, columns=columns).to_pydict()
        self.index = [
            ShardRow(row, pin_id, intern(split), int(view), intern(kind), intern(bucket), promoted == "1", *engagement)
            for row, (pin_id, split, view, kind, bucket, promoted, engagement) in enumerate(
                zip(*(table[column] for column in columns), strict=True)
            )
        ]

    def has_column(self, column: str) -> bool:
        """Return whether the samples have that column."""
        return column in self._shards[0]

    @cached_property
    def cells(self) -> int:
        """Latent cells of the squarest frame; all frames have about as many."""
        row_of = {row.bucket: row.row for row in self.index}
        squarest = min(sorted(row_of), key=_compute_aspect)
        height, width = self._shards[row_of[squarest]]["moments"].shape[1:]
        return int(height * width)

    def get_shape(self, column: str) -> torch.Size:
        """Return the shape of that column in the first sample."""
        shape: torch.Size = self._shards[0][column].shape
        return shape

    def read_columns(self, rows: Sequence[int], columns: Sequence[str]) -> dict[str, torch.Tensor]:
        """Read those columns of rows of one bucket, [rows, ...] each."""
        samples = {row: self._shards[row] for row in sorted(set(rows))}  # in the order of the disk
        tensors = {name: torch.stack([samples[row][name] for row in rows]) for name in columns}
        if self._read_embeddings is not None:
            tensors["image"] = self._read_embeddings([self.index[row].pin_id for row in rows])
        return tensors


def _compute_aspect(bucket: str) -> float:
    sides = [int(side) for side in bucket.split("x")]
    return max(sides) / min(sides)


def spread_evenly(rows: Sequence[T], count: int) -> list[T]:
    """Return `count` of the rows, or all there are, spread evenly."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[place] for place in places]


def group_by_bucket(rows: Iterable[ShardRow]) -> dict[str, list[int]]:
    """Return row numbers by bucket, buckets by name."""
    groups: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: (row.bucket, row.row)):
        groups.setdefault(row.bucket, []).append(row.row)
    return groups


def batch_by_bucket(rows: Iterable[ShardRow], batch_size: int) -> list[list[int]]:
    """Return row numbers in batches of one bucket."""
    return [
        numbers[first : first + batch_size]
        for numbers in group_by_bucket(rows).values()
        for first in range(0, len(numbers), batch_size)
    ]


class EngagementSelection:
    """The rule over shard rows, as a predicate: the threshold is set on the train split, and holds for all. Where no
    promoted product pin of that split has the impressions, or nobody saved or clicked one, the selection is empty."""

    def __init__(self, rows: Sequence[ShardRow], rule: EngagementRule) -> None:
        self.rule = rule
        pins = [row for row in rows if row.view == 0 and row.split == "train"]  # their other views repeat them
        self._rates = sorted((self.compute_rate(row) for row in pins if self._is_eligible(row)), reverse=True)
        self.is_empty = not any(self._rates)
        self.threshold = math.inf if self.is_empty else self._rates[max(1, round(rule.share * len(self._rates))) - 1]

    def __call__(self, row: ShardRow) -> bool:
        return self._is_eligible(row) and self.compute_rate(row) >= self.threshold

    def compute_rate(self, row: ShardRow) -> float:
        """Return the engagement by impression."""
        return (self.rule.saves_weight * row.saves + row.clicks) / row.impressions

    def compute_metrics(self) -> dict[str, Any]:
        """Compare the selection of the train split with what it was selected from, in pins; it must not be empty."""
        selected = [rate for rate in self._rates if rate >= self.threshold]
        return {
            "candidates": len(self._rates),
            "selected": len(selected),
            "threshold": self.threshold,
            "mean_rate_of_candidates": sum(self._rates) / len(self._rates),
            "mean_rate_of_selected": sum(selected) / len(selected),
        }

    def _is_eligible(self, row: ShardRow) -> bool:
        return row.promoted and row.kind == "product" and row.impressions >= self.rule.min_impressions


class BucketBatches(Generic[B]):
    """Batches of one bucket each, drawn in proportion to the buckets' rows; within a bucket every row is seen equally
    often. Bucket and rows of a step are pure functions of (seed, step), so resuming is exact. `shards`: how many rows
    each file holds, if rows lie in files; a bucket's rows must ascend then."""

    def __init__(
        self,
        read: Callable[[Sequence[int]], B],
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

    def __call__(self, step: int, rank: int, world: int) -> B:
        bucket, number = self._find_turn(step)
        chosen = self._orders[bucket].select_rows(self._batch_size, number, rank, world)
        return self._read(self._rows[bucket][chosen].tolist())

    def _find_turn(self, step: int) -> tuple[int, int]:
        """Return the bucket of `step`, and how many earlier steps had it."""
        if step >= len(self._turns):
            draw = np.random.Generator(np.random.Philox(key=[self._seed, 0])).random(max(1024, 2 * step))
            self._turns = np.minimum(np.searchsorted(self._ends, draw, side="right"), len(self._rows) - 1)
        turn = int(self._turns[step])
        return turn, int((self._turns[:step] == turn).sum())
