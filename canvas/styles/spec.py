"""How styles are mined: params of a stage, so this module is light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from canvas.clip.spec import TextSpec
from canvas.styles.clusters import ClusterSpec
from canvas.styles.limits import StyleLimits
from canvas.uve.pin_embeddings import EmbeddingSource
from canvas.uve.spec import UveSpec, compute_embedding_width

DESCRIPTOR_COPIES = 3
"""Of the descriptors at once (canvas.styles.clusters.compute_descriptors): as they are joined, centred, and the means
of their products beside them."""

PRODUCT_MEAN_BYTES = 20
"""Bytes of a number of a product's mean: its sum and the mean in double precision, and the mean in single."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MineStylesParams:
    """Which pins styles are mined from, and what is kept."""

    splits: tuple[str, ...]  # whose pins styles are mined from
    pins: int  # of them, at most: their vectors are held in memory
    source: EmbeddingSource  # of the descriptors
    without_product: bool  # what all pins of a product share is taken out of the descriptors
    clusters: ClusterSpec
    limits: StyleLimits
    shown: int  # representative images of each style


def estimate_mining_memory(
    mine_styles: MineStylesParams, uve: UveSpec, text: TextSpec, pins: int
) -> Iterator[tuple[str, int, str]]:
    """Yield what `mine_styles` holds: the embeddings of its pins, and of as many of the other splits."""
    count, width = min(pins, 2 * mine_styles.pins), compute_embedding_width(mine_styles.source, uve, text.second)
    each = 4 * (uve.embed_dim + text.second.embed_dim + DESCRIPTOR_COPIES * width)
    arithmetic = f"4 x ({uve.embed_dim} + {text.second.embed_dim} + {DESCRIPTOR_COPIES} x {width})"
    if mine_styles.without_product:
        each += PRODUCT_MEAN_BYTES * width
        arithmetic = f"({arithmetic} + {PRODUCT_MEAN_BYTES} x {width}, if each has a product of its own)"
    yield "", count * each, f"{count:,} x {arithmetic} bytes"
