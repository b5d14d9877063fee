"""Params of the diffusion transformer: light to import."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.ranges import Count, Natural

PATCH = 2
"""Latent cells along a token's side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DitSpec:
    """Widths and depths of the transformer, which is diffusers' `FluxTransformer2DModel`."""

    heads: Count  # of attention; the width is heads * head_width
    head_width: Count  # numbers of a head
    double_blocks: Count  # first blocks, where text and image have weights of their own; image prompts count there
    single_blocks: Natural  # blocks after them, where they share weights
    zero_modulation: bool  # gates, scales, shifts and output start at zero (adaLN-zero): each block passes its input on
    rope_widths: tuple[int, int, int]  # numbers of a head that tell 0 (as in Flux), row and column; even

    def __post_init__(self) -> None:
        if any(width < 2 or width % 2 for width in self.rope_widths) or sum(self.rope_widths) != self.head_width:
            raise ValueError(
                f"denoiser.dit.rope_widths is {list(self.rope_widths)}: give three even numbers that sum to "
                f"denoiser.dit.head_width, {self.head_width}"
            )
