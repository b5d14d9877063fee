"""The upscaler that generates what a regression leaves out.

A regression says the mean of all that a small image may have been, so it is soft. Its network stands here, too, and
beside it a second one generates the difference to the image by a flow in a few steps, given the mean and the product
(residual diffusion: Mardani et al. 2023, CorrDiff). A third says how large the difference is where, so that the noise
it begins with is faint on a wall and strong in leaves. Its detail is invented, and its pixels are further from the
truth.

The noise is a function of the place in the image, so tiles agree where they meet, and the same image gets the same
detail.

B: batch, h and w: size of the small image, s: factor.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.upscaler.model import ResidualBlock, Upscaler, build_heads, build_stems, compute_factor
from canvas.upscaler.spec import FACTORS, UpscalerSpec
from canvas.vae.model import zero_module

LOG_SPREADS = (-4.0, 2.0)
"""Bounds of the logarithm of a residual's size over that of all."""
NOISE_SIDE = 128
"""Pixels of the side of the squares whose noise is drawn at once."""
NOISE_SEED = 0
"""Seed of the noise, the same for every image."""
LEAST_VARIANCE = 1e-6
"""Variance of residuals of less than a level of 255: so much they have at least."""
TIMES = 1000.0
"""What a time of 1, all noise, is to the embedding of times."""


class DiffusionUpscaler(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Small image and full-size product -> full-size image of the background, 2 or 4 times as large.

    Args:
        width: Channels of all networks.
        blocks: Residual blocks of the regression and of the flow.
        steps: Passes of the flow, a network about as large as the regression.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int, blocks: int, steps: int) -> None:
        super().__init__()
        self.regression = Upscaler(width, blocks)
        self.spread = ResidualSpread(width)
        self.flow = ResidualFlow(width, blocks)
        self.register_buffer("deviations", torch.ones(len(FACTORS)))  # of the residuals in [-1, 1], by factor
        self.deviations: torch.Tensor

    @classmethod
    def from_spec(cls, spec: UpscalerSpec) -> DiffusionUpscaler:
        """Build it untrained."""
        return cls(width=spec.width, blocks=spec.blocks, steps=spec.steps)

    @property
    def reach(self) -> int:
        """Pixels of the small image, on each side, that a pixel of the large one depends on."""
        flow = int(self.config["steps"]) * self.flow.reach
        return self.regression.reach + max(flow, self.spread.reach)

    def forward(
        self, small: torch.Tensor, product: torch.Tensor, alpha: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Enlarge backgrounds as `Upscaler.forward` does, from `noise` (1 or B, 3, s * h, s * w); None: that of the
        image's upper left corner."""
        mean, factor = self.regression(small, product, alpha), compute_factor(small, alpha)
        if noise is None:
            noise = draw_noise(slice(0, mean.shape[2]), slice(0, mean.shape[3]))
        steps = int(self.config["steps"])
        sample = noise.to(mean).expand_as(mean)
        for left in range(steps, 0, -1):
            times = mean.new_full((len(mean),), left / steps)
            residual = self.flow(sample, times, mean, product, alpha, factor)
            sample = residual + (left - 1) / left * (sample - residual)
        return mean + self.measure_spread(mean, product, alpha, factor) * sample

    def measure_spread(
        self, mean: torch.Tensor, product: torch.Tensor, alpha: torch.Tensor, factor: int
    ) -> torch.Tensor:
        """Return how large residuals are, (B, 3, s * h, s * w): what `ResidualFlow` has them divided by."""
        return self.deviations[FACTORS.index(factor)] * self.spread(mean, product, alpha, factor)

    @torch.no_grad()
    def measure_residuals(self, examples: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Measure what the regression leaves of backgrounds at one factor; `examples` as of `Upscaler.fit_filter`."""
        squares, pixels, factor = 0.0, 0.0, FACTORS[0]
        for small, alpha, targets in examples:
            left = (1 - alpha) * (targets - self.regression(small, targets, alpha))
            squares, pixels = squares + float(left.square().sum()), pixels + 3 * float((1 - alpha).sum())
            factor = compute_factor(small, alpha)
        self.deviations[FACTORS.index(factor)] = max(squares / max(pixels, 1.0), LEAST_VARIANCE) ** 0.5


class ResidualSpread(nn.Module):
    """What is known -> the mean size of the residual at each pixel, over that of all."""

    reach = 4
    """Pixels of the small image, on each side, that a pixel of it depends on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stems = build_stems(width, 7)
        self.block = ResidualBlock(width)
        self.heads = build_heads(width)

    def forward(self, mean: torch.Tensor, product: torch.Tensor, alpha: torch.Tensor, factor: int) -> torch.Tensor:
        """Return it, (B, 3, s * h, s * w), for what `ResidualFlow.forward` takes."""
        known = F.pixel_unshuffle(torch.cat([mean, alpha * product, alpha], dim=1), factor)
        logarithm = self.heads[str(factor)](self.block(self.stems[str(factor)](known)))
        return F.pixel_shuffle(logarithm.clamp(*LOG_SPREADS).exp(), factor)


class ResidualFlow(nn.Module):
    """Noisy residual, its time, and what is known -> the residual; at the small image's resolution.

    The network says what the best guess without it, a share of the noisy residual, lacks (Karras et al. 2022, section
    5).
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.times = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embedding = TimestepEmbedding(width, width)
        self.stems = build_stems(width, 10)
        self.trunk = nn.ModuleList(TimedBlock(width) for _ in range(blocks))
        self.heads = build_heads(width)

    @property
    def reach(self) -> int:
        """Pixels of the small image, on each side, that a pixel of the residual depends on."""
        return 2 + 2 * len(self.trunk)

    def forward(
        self,
        sample: torch.Tensor,
        times: torch.Tensor,
        mean: torch.Tensor,
        product: torch.Tensor,
        alpha: torch.Tensor,
        factor: int,
    ) -> torch.Tensor:
        """Say what the residual is, over its spread.

        Args:
            sample: Noisy residuals (B, 3, s * h, s * w), over their spread; not seen where there is product.
            times: (B,), 0 to 1: the share of noise.
            mean: What the regression says (B, 3, s * h, s * w), in [-1, 1].
            product: As `Upscaler.forward` takes it.
            alpha: Likewise.
            factor: s.
        """
        sample, time = (1 - alpha) * sample, times[:, None, None, None].to(sample)
        size = compute_size(time)
        known = F.pixel_unshuffle(torch.cat([sample / size, mean, alpha * product, alpha], dim=1), factor)
        x = self.stems[str(factor)](known)
        embedding = self.embedding(self.times(TIMES * times).to(x))
        for block in self.trunk:
            x = block(x, embedding)
        return (1 - time) / size**2 * sample + time / size * F.pixel_shuffle(self.heads[str(factor)](x), factor)


def compute_size(times: torch.Tensor) -> torch.Tensor:
    """Return the deviation of a noisy residual whose residual and noise have a deviation of 1."""
    return ((1 - times) ** 2 + times**2).sqrt()


class TimedBlock(nn.Module):
    """Two convolutions beside a shortcut, scaled and shifted by the time's embedding (B, width) between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = zero_module(nn.Linear(width, 2 * width))
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)
        residual: torch.Tensor = self.second(F.silu((1 + scale) * self.first(x) + shift))
        return x + residual


def draw_noise(rows: slice, columns: slice) -> torch.Tensor:
    """Draw standard normal noise (1, 3, rows, columns) for those pixels of a large image: each pixel's is its own."""
    squares = [[_draw_square(row, column) for column in _list_squares(columns)] for row in _list_squares(rows)]
    top, left = rows.start % NOISE_SIDE, columns.start % NOISE_SIDE
    whole = np.concatenate([np.concatenate(line, axis=2) for line in squares], axis=1)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return torch.from_numpy(whole[None, :, top : top + height, left : left + width])


def _list_squares(pixels: slice) -> range:
    return range(pixels.start // NOISE_SIDE, (pixels.stop - 1) // NOISE_SIDE + 1)


def _draw_square(row: int, column: int) -> NDArray[np.float32]:
    random = np.random.default_rng([NOISE_SEED, row, column])
    return random.standard_normal((3, NOISE_SIDE, NOISE_SIDE), np.float32)
