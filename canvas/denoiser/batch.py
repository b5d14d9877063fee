"""Training samples as a denoiser's objective reads them. B samples; C latent channels; h, w the latents' size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NotRequired

import torch
from typing_extensions import TypedDict

from canvas.shards.rows import BucketBatches, ShardRow, ShardRows, group_by_bucket

MaskKind = Literal["none", "random", "product"]
"""Which of the shards' masks hide the image; none: text-to-image."""


class DenoiserBatch(TypedDict):
    """Samples of one frame, each with K captions and M masks; raw latents are as the autoencoder gives them."""

    pin_id: list[str]
    moments: torch.Tensor  # (B, 2C, h, w), mean and log-variance of the raw latents
    text_states: torch.Tensor  # (B, K, L, D), hidden states of the text towers
    text_pooled: torch.Tensor  # (B, K, P), pooled text
    sizes: torch.Tensor  # (B, 6), canvas.pins.frames.build_size_ids
    masked: NotRequired[torch.Tensor]  # (B, M, C, h, w), raw latents (means) of the masked image; inpainting only
    holes: NotRequired[torch.Tensor]  # (B, M, K, h, w), 1 = generate, K numbers a latent cell; inpainting only
    features: NotRequired[torch.Tensor]  # (B, F, rows, columns), a frozen network's; alignment only
    image: NotRequired[torch.Tensor]  # (B, E), embedding of the image itself; image prompts only


def read_batch(
    shards: ShardRows, rows: Sequence[int], masks: MaskKind, *, with_features: bool = False
) -> DenoiserBatch:
    """Read those rows, which are of one bucket."""
    masked, holes = f"masked_{masks}", f"holes_{masks}"
    names = ["moments", "text_states", "text_pooled", "sizes", *([] if masks == "none" else [masked, holes])]
    names += ["features"] if with_features else []
    columns = shards.read_columns(rows, names)
    batch = DenoiserBatch(
        pin_id=[shards.index[row].pin_id for row in rows],
        moments=columns["moments"],
        text_states=columns["text_states"],
        text_pooled=columns["text_pooled"],
        sizes=columns["sizes"],
    )
    if masks != "none":
        batch["masked"], batch["holes"] = columns[masked], columns[holes]
    if with_features:
        batch["features"] = columns["features"]
    if "image" in columns:
        batch["image"] = columns["image"]
    return batch


def build_batches(
    shards: ShardRows,
    rows: Iterable[ShardRow],
    masks: MaskKind,
    batch_size: int,
    seed: int,
    *,
    with_features: bool = False,
) -> BucketBatches[DenoiserBatch]:
    """Build the batches of a training, each of one bucket.

    Args:
        shards: Where the samples lie.
        rows: Which of them are trained on; neighbours in time are neighbours on disk.
        masks: Which masks hide the image.
        batch_size: Samples of a batch, over all ranks.
        seed: Of the order.
        with_features: Whether a frozen network's features are read, too.
    """
    buckets = group_by_bucket(rows)
    return BucketBatches(
        lambda chosen: read_batch(shards, chosen, masks, with_features=with_features),
        buckets,
        batch_size,
        seed,
        shards=shards.sizes,
    )
