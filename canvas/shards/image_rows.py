"""Training samples with the embedding of their own picture: what an image-prompt adapter learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from canvas.shards.rows import ShardRows
from canvas.train.data import Batch


class ImageRows(ShardRows):
    """Shards joined to embeddings by pin: every batch has a column `image` (B, E)."""

    def __init__(self, path: Path, embedding: Callable[[Sequence[str]], torch.Tensor]) -> None:
        super().__init__(path)
        self._embedding = embedding

    def batch(self, rows: Sequence[int], columns: Mapping[str, str]) -> Batch:
        batch = super().batch(rows, columns)
        pins = batch["pin_id"]
        assert isinstance(pins, list)
        return {**batch, "image": self._embedding(pins)}
