"""Params of the alignment: light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

from canvas.ranges import Count, Positive


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureAlignment:
    """How hidden states are drawn to `encode.features` (REPA, Yu et al. 2025)."""

    layer: str  # block whose output is aligned: transformer_blocks.0, single_transformer_blocks.2; of a UNet mid_block
    weight: Positive  # of 1 - cosine similarity in the loss
    width: Count  # hidden numbers of the projection, which is thrown away after training
    share: Annotated[
        float, Gt(0), Le(1)
    ]  # of the steps, from the first; the others learn from the denoising loss alone

    def count_steps(self, steps: int) -> int:
        """Return the steps of a training of so many that are aligned."""
        return round(self.share * steps)
