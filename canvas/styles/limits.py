"""What a style must be: params of mining, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from canvas.ranges import Share

if TYPE_CHECKING:
    from canvas.styles.coherence import CoherenceTest
    from canvas.styles.table import Style


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleLimits:
    """What a style must be; what is not is dropped with a reason."""

    min_pins: Annotated[int, Ge(2)]  # of a style
    min_purity: Share  # of a cluster's captions that speak of its name
    min_coherence: float  # of a cluster
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
