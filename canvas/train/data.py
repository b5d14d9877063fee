"""Data as the loop asks for it: the batch of a step is a pure function of the step, so resuming is exact."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

Batch = Mapping[str, torch.Tensor | list[str]]
"""Columns of equal length. `pin_id`, a list of str, is always among them."""


def placed(batch: Batch, device: torch.device) -> Batch:
    """`batch` with its tensors on `device`."""
    return {name: column.to(device) if isinstance(column, torch.Tensor) else column for name, column in batch.items()}


class Batches(Protocol):
    """The data of a run."""

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        """Rank `rank`'s slice of global batch number `step` (from 0): samples rank * B / world onwards of its B.

        A pure function: the slices of `world` ranks, one after the other, are the batch of one rank.
        """
        ...


def epoch_places(rows: int, batch_size: int, step: int, rank: int, world: int) -> np.ndarray:
    """Epoch and place in it of each sample of this rank's slice of batch `step`: int64 [batch_size // world, 2].

    A batch may end one epoch and start the next, so every row is seen equally often.
    """
    if batch_size % world:
        raise ValueError(f"batch_size is {batch_size}: it must be a multiple of the {world} processes that share it")
    local = batch_size // world
    places = np.arange(local) + step * batch_size + rank * local
    return np.stack(np.divmod(places, rows), axis=1)


def batch_rows(rows: int, batch_size: int, seed: int, step: int, rank: int, world: int) -> np.ndarray:
    """Which of `rows` rows make this rank's slice of batch `step`, in each epoch's own order: int64 [local]."""
    epochs, places = epoch_places(rows, batch_size, step, rank, world).T
    chosen = np.empty(len(places), dtype=np.int64)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        chosen[inside] = _order(rows, seed, int(epoch))[places[inside]]
    return chosen


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(rows)


class TensorBatches:
    """Columns in memory, [rows, ...] each, shuffled by epoch: `columns` must hold `pin_id`, a list of str."""

    def __init__(self, columns: Mapping[str, torch.Tensor | list[str]], batch_size: int, seed: int) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if "pin_id" not in columns or len(set(lengths.values())) != 1 or not lengths["pin_id"]:
            raise ValueError(f"training columns must be of one length above 0 and hold pin_id; these are {lengths}")
        self.columns = columns
        self.rows = lengths["pin_id"]
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        rows = batch_rows(self.rows, self.batch_size, self.seed, step, rank, world)
        index = torch.from_numpy(rows)
        return {
            name: column[index] if isinstance(column, torch.Tensor) else [column[row] for row in rows]
            for name, column in self.columns.items()
        }


class Prefetched:
    """`batches` read one step ahead on a thread, for data that is slow to read or decode."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[tuple[int, int, int], Future[Batch]] | None = None

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        wanted = (step, rank, world)
        if self._ahead is not None and self._ahead[0] == wanted:
            batch = self._ahead[1].result()
        else:
            batch = self._batches(*wanted)
        following = (step + 1, rank, world)
        self._ahead = (following, self._pool.submit(self._batches, *following))
        return batch
