"""What a style must be: params of mining, so this module is light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canvas.styles.coherence import CoherenceTest


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleLimits:
    """What a style must be; what is not is dropped with a reason."""

    min_pins: int  # of a style
    min_purity: float  # share of a cluster's pins whose captions speak of its name
    min_coherence: float  # of a cluster
    chance: float  # share of the boards taken for strong ones that may be so by chance (Benjamini and Hochberg 1995)
    min_gain: float  # of a board's coherence over that of random pins

    def __post_init__(self) -> None:
        if self.min_pins < 2 or not (0 <= self.min_purity <= 1 and 0 < self.chance < 1):
            raise ValueError(
                f"limits need min_pins of 2 or more, min_purity in 0..1 and chance inside 0..1, not {self}"
            )

    def find_size_fault(self, pins: int) -> str | None:
        """Return why a group of so many pins is no style; None: it is large enough."""
        return f"small: {pins} pins, {self.min_pins} are needed" if pins < self.min_pins else None

    def find_cluster_fault(self, row: Mapping[str, Any]) -> str | None:
        """Return why a cluster, a row of tables.STYLES, is no style; None: it is one."""
        if fault := self.find_size_fault(len(row["pins"])):
            return fault
        if row["purity"] is None:
            return "nameless: none of its pins has a caption"
        if row["purity"] < self.min_purity:
            return f"mixed: {row['purity']:.2f} of its captions speak of {row['name']!r}, {self.min_purity} is needed"
        if row["coherence"] < self.min_coherence:
            return f"loose: its pins' mean cosine is {row['coherence']:.2f}, {self.min_coherence} is needed"
        return None

    def find_board_fault(self, test: CoherenceTest, is_significant: bool) -> str | None:
        """Return why a board of enough pins has no style of its own; None: it has one."""
        if not is_significant:
            return f"no style of its own: pins at random cohere as much with a chance of {test.p_value:.3f}"
        if (gain := test.coherence - test.random) < self.min_gain:
            return f"a weak style: its coherence is {gain:.2f} above chance, {self.min_gain} is needed"
        return None
