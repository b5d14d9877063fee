"""Which pins people engaged with: the selection that the last tuning sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canvas.shards.rows import ShardRow


@dataclass(frozen=True, kw_only=True, slots=True)
class EngagementRule:
    """Promoted product pins with enough impressions, the best of them by engagement."""

    min_impressions: int  # below, a rate says little
    share: float  # of those pins, highest rate first, that are taken, of every split
    saves_weight: float  # rate = (saves_weight * saves + clicks) / impressions

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.min_impressions < 1 or self.saves_weight < 0:
            raise ValueError(
                f"engagement rule needs share in 0..1, min_impressions of 1 or more, saves_weight of 0 or more, "
                f"not {self}"
            )


class EngagementSelection:
    """The rule over shard rows, as a predicate: the threshold is set on the train split, and holds for all."""

    def __init__(self, rows: Sequence[ShardRow], rule: EngagementRule) -> None:
        self.rule = rule
        pins = [row for row in rows if row.view == 0]  # their other views repeat them
        rates = sorted(
            (self.compute_rate(row) for row in pins if row.split == "train" and self._is_eligible(row)), reverse=True
        )
        if not rates:
            raise ValueError(
                f"no promoted product pin of the train split has {rule.min_impressions} impressions: lower "
                "min_impressions"
            )
        self.threshold = rates[max(1, round(rule.share * len(rates))) - 1]
        self._before = rates
        self._after = [rate for rate in rates if rate >= self.threshold]

    def __call__(self, row: ShardRow) -> bool:
        return self._is_eligible(row) and self.compute_rate(row) >= self.threshold

    def compute_rate(self, row: ShardRow) -> float:
        """Engagement by impression."""
        return (self.rule.saves_weight * row.saves + row.clicks) / row.impressions

    def compute_metrics(self) -> dict[str, Any]:
        """The selection of the train split against what it was selected from, in pins."""
        return {
            "candidates": len(self._before),
            "selected": len(self._after),
            "threshold": self.threshold,
            "mean_rate_of_candidates": sum(self._before) / len(self._before),
            "mean_rate_of_selected": sum(self._after) / len(self._after),
        }

    def _is_eligible(self, row: ShardRow) -> bool:
        return row.promoted and row.kind == "product" and row.impressions >= self.rule.min_impressions
