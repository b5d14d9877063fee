"""Who of the raters counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingRules:
    """Limits beyond which everything that a rater said is set aside; shares in 0..1."""

    min_checks: int  # attention checks that must have been answered
    max_failed_checks: float  # share of them that may be failed
    max_contradictions: float  # share of repeats in which the other picture may be chosen than before

    def __post_init__(self) -> None:
        if self.min_checks < 0 or not (0 <= self.max_failed_checks <= 1 and 0 <= self.max_contradictions <= 1):
            raise ValueError(f"rating rules are a count and two shares of 0..1, not {self}")
