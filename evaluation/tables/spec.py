"""Params of the stages that check tables: light to import."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.ranges import Natural, NonNegative, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What differs from catalogue to catalogue."""

    min_pins: Natural  # rows without which nothing should be trained
    max_broken: Share  # share of pins without a readable size
    max_untitled: Share  # share of pins without a title
    max_rejected_masks: Share  # share of masks with a reason against them


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftLimits:
    """Distances from which a column has drifted, and how many columns may."""

    numerical: NonNegative  # Wasserstein distance over the reference's standard deviation
    categorical: Share  # Jensen-Shannon distance, 0..1
    max_share: Share  # of the columns that may drift before the verdict is drift
