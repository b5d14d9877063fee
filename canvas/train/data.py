"""Data as the loop asks for it: the batch of a step is a pure function of the step, so resuming is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, Protocol, TypeVar, cast

import numpy as np
import torch

from canvas.device import default_device

Batch = Mapping[str, torch.Tensor | list[str]]
"""Columns of equal length. `pin_id`, a list of str, is always among them."""

B = TypeVar("B", bound=Mapping[str, object])
"""A `Batch`, or the TypedDict of an objective's columns."""
B_co = TypeVar("B_co", bound=Mapping[str, object], covariant=True)

MIXED_SHARDS = 16
"""Shards whose rows come together, of each bucket: more mix better, fewer are read at a time."""


def move_batch(batch: B, device: torch.device, channels_last: bool = False) -> B:
    """Return `batch` on `device`, its tensors of four dimensions in memory format `channels_last` if that is set."""
    moved = dict(batch)
    for name, column in batch.items():
        if isinstance(column, torch.Tensor):
            column = column.to(device, non_blocking=True)
            if channels_last and column.ndim == 4:
                column = column.contiguous(memory_format=torch.channels_last)
            moved[name] = column
    return cast(B, moved)


def pin_batch(batch: B) -> B:
    """Return `batch` in page-locked memory, from which a GPU copies while it computes; as it is without a GPU."""
    if not torch.cuda.is_available():
        return batch
    with torch.cuda.device(
        default_device()
    ):  # a thread's own is the first GPU, which has the memory of its ranks alone
        pinned = {name: x.pin_memory() if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
    return cast(B, pinned)


def get_local_batch_size(batch_size: int, world: int) -> int:
    """Samples of a batch that each of `world` processes has; ValueError unless they are equally many."""
    if batch_size % world:
        raise ValueError(f"batch_size is {batch_size}: it must be a multiple of the {world} processes that share it")
    return batch_size // world


class Batches(Protocol[B_co]):
    """The data of a run."""

    def __call__(self, step: int, rank: int, world: int) -> B_co:
        """Return rank `rank`'s slice of global batch `step` (from 0): samples rank * N / world onwards of its N.

        A pure function: the slices of `world` ranks, one after the other, are the batch of one rank.
        """


class Order:
    """The order of rows that lie in `shards` of so many each: epoch after epoch, each in its own order, in which every
    row comes once.

    An epoch goes through the shards at random, `mixed` at a time, whose rows are permuted together: at random, yet near
    each other on disk. The order is a pure function of (seed, epoch); memory holds that of two times `mixed` shards.
    """

    def __init__(self, shards: Sequence[int], seed: int, mixed: int = MIXED_SHARDS) -> None:
        self._sizes = np.array([size for size in shards if size])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.rows = int(self._sizes.sum())
        self._seed = seed
        self._mixed = mixed
        self._get_shards = lru_cache(maxsize=2)(self._draw_shards)
        self._get_rows = lru_cache(maxsize=2)(self._draw_rows)

    def select_rows(self, batch_size: int, step: int, rank: int, world: int) -> np.ndarray:
        """Return the rows of this rank's slice of batch `step`, int64 [batch_size // world]; it may span two epochs."""
        local = get_local_batch_size(batch_size, world)
        epochs, places = np.divmod(np.arange(local) + step * batch_size + rank * local, self.rows)
        chosen = np.empty(local, dtype=np.int64)
        for epoch in np.unique(epochs):
            _, bounds = self._get_shards(int(epoch))
            groups = np.searchsorted(bounds, places, side="right") - 1
            for group in np.unique(groups[epochs == epoch]):
                is_in_group = (epochs == epoch) & (groups == group)
                chosen[is_in_group] = self._get_rows(int(epoch), int(group))[places[is_in_group] - bounds[group]]
        return chosen

    def _draw_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of the shards, and the place at which each group of them starts."""
        draw = np.random.Generator(np.random.Philox(key=[self._seed, epoch], counter=[0, 0, 1, 0]))
        shards = draw.permutation(len(self._sizes))
        ends = np.cumsum(self._sizes[shards])
        return shards, np.append(0, ends[self._mixed - 1 : -1 : self._mixed])

    def _draw_rows(self, epoch: int, group: int) -> np.ndarray:
        shards, _ = self._get_shards(epoch)
        members = np.sort(shards[group * self._mixed : (group + 1) * self._mixed])
        rows = np.concatenate([np.arange(self._sizes[shard]) + self._starts[shard] for shard in members])
        draw = np.random.Generator(np.random.Philox(key=[self._seed, epoch], counter=[0, 0, 0, group]))
        return rows[draw.permutation(len(rows))]


def select_batch_rows(rows: int, batch_size: int, seed: int, step: int, rank: int, world: int) -> np.ndarray:
    """Return which of `rows` rows in memory make this rank's slice of batch `step`: int64 [batch_size // world]."""
    return _get_order((rows,), seed).select_rows(batch_size, step, rank, world)


_get_order = lru_cache(maxsize=8)(Order)


class TensorBatches(Generic[B]):
    """Columns in memory, [rows, ...] each, shuffled by epoch: `columns` must hold `pin_id`, a list of str."""

    def __init__(self, columns: B, batch_size: int, seed: int) -> None:
        lengths = {name: len(cast(Sized, column)) for name, column in columns.items()}
        if "pin_id" not in columns or len(set(lengths.values())) != 1 or not lengths["pin_id"]:
            raise ValueError(f"training columns must be of one length above 0 and hold pin_id; these are {lengths}")
        self.columns = columns
        self.rows = lengths["pin_id"]
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, step: int, rank: int, world: int) -> B:
        rows = select_batch_rows(self.rows, self.batch_size, self.seed, step, rank, world)
        index = torch.from_numpy(rows)
        batch = {
            name: column[index] if isinstance(column, torch.Tensor) else [cast(list[str], column)[row] for row in rows]
            for name, column in self.columns.items()
        }
        return cast(B, batch)


class PrefetchedBatches(Generic[B]):
    """`batches` read one step ahead on a thread, for data that is slow to read or decode, in page-locked memory where
    there is a GPU."""

    def __init__(self, batches: Batches[B]) -> None:
        self._batches = batches
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[tuple[int, int, int], Future[B]] | None = None

    def __call__(self, step: int, rank: int, world: int) -> B:
        if self._ahead is not None and self._ahead[0] == (step, rank, world):
            batch = self._ahead[1].result()
        else:
            batch = self._read(step, rank, world)
        following = (step + 1, rank, world)
        self._ahead = (following, self._pool.submit(self._read, *following))
        return batch

    def _read(self, step: int, rank: int, world: int) -> B:
        return pin_batch(self._batches(step, rank, world))
