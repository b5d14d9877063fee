"""How styles are mined: params of a stage, so this module is light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from canvas.clip.spec import TextSpec
from canvas.ranges import Cosine, Count, Natural, Share
from canvas.uve.spec import EmbeddingSource, UveSpec, compute_embedding_width

if TYPE_CHECKING:
    from canvas.styles.clusters import CoherenceTest
    from canvas.styles.table import Style

Criterion = Literal["silhouette", "calinski_harabasz", "davies_bouldin"]

DESCRIPTOR_COPIES = 3
"""Copies of the descriptors at once (canvas.styles.clusters.compute_descriptors): as they are joined, centred, and the
means of their products beside them."""

PRODUCT_MEAN_BYTES = 20
"""Bytes of a number of a product's mean: its sum and the mean in double precision, and the mean in single."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSpec:
    """K-means over several numbers of clusters; the criterion takes the best."""

    numbers: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1)]  # of clusters to try
    criterion: Criterion  # by which the number is chosen
    criterion_pins: Count  # that it is computed on, at most: a silhouette takes time and memory with their square
    batch_size: Count | None  # of MiniBatchKMeans; null: whole passes (Lloyd)
    restarts: Count  # of k-means, of which the best is kept
    seed: Natural  # of k-means, and of the pins that the criterion is computed on

    def __post_init__(self) -> None:
        if self.criterion_pins <= (largest := max(self.numbers, default=0)):
            raise ValueError(f"clusters.criterion_pins is {self.criterion_pins}: give more than the {largest} clusters")


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleLimits:
    """What a style must be; what is not is dropped with a reason."""

    min_pins: Annotated[int, Ge(2)]  # of a style
    min_purity: Share  # of a cluster's captions that speak of its name
    min_coherence: Cosine  # of a cluster
    chance: Annotated[float, Gt(0), Lt(1)]
    """Share of the boards taken for strong ones that may be so by chance (Benjamini and Hochberg 1995)."""
    min_gain: float  # of a board's coherence over that of random pins

    def find_size_fault(self, pins: int) -> str | None:
        """Return why a group of so many pins is no style; None: it is large enough."""
        return f"small: {pins} pins, {self.min_pins} are needed" if pins < self.min_pins else None

    def find_cluster_fault(self, style: Style) -> str | None:
        """Return why a cluster is no style; None: it is one."""
        if fault := self.find_size_fault(len(style.pins)):
            return fault
        if style.purity is None:
            return "nameless: none of its pins has a caption"
        if style.purity < self.min_purity:
            return f"mixed: {style.purity:.2f} of its captions speak of {style.name!r}, {self.min_purity} is needed"
        assert style.coherence is not None, "a cluster of enough pins has a coherence"
        if style.coherence < self.min_coherence:
            return f"loose: its pins' mean cosine is {style.coherence:.2f}, {self.min_coherence} is needed"
        return None

    def find_board_fault(self, test: CoherenceTest, is_significant: bool) -> str | None:
        """Return why a board of enough pins has no style of its own; None: it has one."""
        if not is_significant:
            return f"no style of its own: pins at random cohere as much with a chance of {test.p_value:.3f}"
        if (gain := test.coherence - test.random) < self.min_gain:
            return f"a weak style: its coherence is {gain:.2f} above chance, {self.min_gain} is needed"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class MineStylesParams:
    """Which pins styles are mined from, and what is kept."""

    splits: tuple[str, ...]  # whose pins styles are mined from
    pins: Count  # of them, at most: their vectors are held in memory
    source: EmbeddingSource  # of the descriptors
    without_product: bool  # what all pins of a product share is taken out of the descriptors
    clusters: ClusterSpec
    limits: StyleLimits
    strip_pins: Count  # representative images of each style in the report


def estimate_mining_memory(
    mine_styles: MineStylesParams, uve: UveSpec, text: TextSpec, pins: int
) -> Iterator[tuple[str, int, str]]:
    """Yield what `mine_styles` holds: the embeddings of its pins, and of as many of the other splits."""
    count, width = min(pins, 2 * mine_styles.pins), compute_embedding_width(mine_styles.source, uve, text.second)
    uve_width = compute_embedding_width("uve", uve, text.second)
    each = 4 * (uve_width + text.second.embed_dim + DESCRIPTOR_COPIES * width)
    arithmetic = f"4 x ({uve_width} + {text.second.embed_dim} + {DESCRIPTOR_COPIES} x {width})"
    if mine_styles.without_product:
        each += PRODUCT_MEAN_BYTES * width
        arithmetic = f"({arithmetic} + {PRODUCT_MEAN_BYTES} x {width}, if each has a product of its own)"
    yield "", count * each, f"{count:,} x {arithmetic} bytes"
