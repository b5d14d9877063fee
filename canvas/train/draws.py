"""Random numbers of a step that do not depend on how its batch is cut up."""

from __future__ import annotations

from collections.abc import Callable

import torch

UINT64_MAX = (1 << 64) - 1


class Draws:
    """Noise for samples `first .. first + samples` of global batch `step`.

    Each sample has a generator of its own, seeded by (seed, step, its index in the global batch), so a sample draws
    the same on one rank or two, in one pass or accumulated over four. CPU and CUDA generators differ from each other.
    Every call takes the whole shape, its first dimension being the samples of the batch at hand:
    `draws.normal(*latents.shape)`, `draws.uniform(len(latents))`. Successive calls are independent.
    """

    def __init__(
        self, seed: int, step: int, first: int, samples: int, device: torch.device | str = "cpu", stream: int = 0
    ) -> None:
        self.step = step
        """Steps done before this one: objectives may schedule by it."""
        self.device = torch.device(device)
        self._generators = [
            torch.Generator(self.device).manual_seed(mix_seed(seed, stream, step, first + sample))
            for sample in range(samples)
        ]

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw standard normal float32 of `shape`, [samples, ...]."""
        return self._draw(shape, torch.float32, torch.Tensor.normal_)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Draw uniform float32 in [0, 1) of `shape`, [samples, ...]."""
        return self._draw(shape, torch.float32, torch.Tensor.uniform_)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Draw uniform int64 in 0 .. high - 1 of `shape`, [samples, ...]."""
        return self._draw(shape, torch.int64, lambda row, generator: row.random_(0, high, generator=generator))

    def _draw(self, shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[..., object]) -> torch.Tensor:
        assert shape[:1] == (len(self),), f"a shape of {len(self)} samples must start with it, not {shape}"
        drawn = torch.empty(shape, dtype=dtype, device=self.device)
        for row, generator in zip(drawn, self._generators, strict=True):
            fill(row, generator=generator)
        return drawn


def mix_seed(*parts: int) -> int:
    """Return a seed: 64 well-mixed bits of `parts` (SplitMix64's finalizer, Steele et al. 2014, over a running sum)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & UINT64_MAX
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & UINT64_MAX
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & UINT64_MAX
        state ^= state >> 31
    return state
