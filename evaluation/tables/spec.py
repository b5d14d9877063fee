"""Params of the stages that check tables: light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What differs from catalogue to catalogue."""

    min_pins: int  # rows without which nothing should be trained
    max_broken: float  # share of pins without a readable size
    max_untitled: float  # share of pins without a title
    max_rejected_masks: float  # share of masks with a reason against them


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftLimits:
    """Distances from which a column has drifted, and how many columns may."""

    numerical: float  # Wasserstein distance over the reference's standard deviation
    categorical: float  # Jensen-Shannon distance, 0..1
    max_share: float  # of the columns that may drift before the verdict is drift
