"""Which pins people engaged with: the selection that the last tuning sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from canvas.shards.rows import ShardRow
from canvas.shards.spec import EngagementRule


class EngagementSelection:
    """The rule over shard rows, as a predicate: the threshold is set on the train split, and holds for all."""

    def __init__(self, rows: Sequence[ShardRow], rule: EngagementRule) -> None:
        self.rule = rule
        pins = [row for row in rows if row.view == 0 and row.split == "train"]  # their other views repeat them
        self._rates = sorted((self.compute_rate(row) for row in pins if self._is_eligible(row)), reverse=True)
        if not self._rates:
            raise ValueError(
                f"no promoted product pin of the train split has {rule.min_impressions} impressions: lower "
                "min_impressions"
            )
        self.threshold = self._rates[max(1, round(rule.share * len(self._rates))) - 1]

    def __call__(self, row: ShardRow) -> bool:
        return self._is_eligible(row) and self.compute_rate(row) >= self.threshold

    def compute_rate(self, row: ShardRow) -> float:
        """Return the engagement by impression."""
        return (self.rule.saves_weight * row.saves + row.clicks) / row.impressions

    def compute_metrics(self) -> dict[str, Any]:
        """Compare the selection of the train split with what it was selected from, in pins."""
        selected = [rate for rate in self._rates if rate >= self.threshold]
        return {
            "candidates": len(self._rates),
            "selected": len(selected),
            "threshold": self.threshold,
            "mean_rate_of_candidates": sum(self._rates) / len(self._rates),
            "mean_rate_of_selected": sum(selected) / len(selected),
        }

    def _is_eligible(self, row: ShardRow) -> bool:
        return row.promoted and row.kind == "product" and row.impressions >= self.rule.min_impressions
