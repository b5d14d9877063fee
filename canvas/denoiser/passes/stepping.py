"""The denoiser under the condition of latents that are on their way, and what later steps take over from earlier ones.

N: latents in a pass, C: latent channels, h and w: latent size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from canvas.denoiser.family import Denoiser, DenoiserCondition, Predict, Prepare
from canvas.denoiser.loading import get_family
from canvas.denoiser.schedulers import apply_guidance
from canvas.denoiser.spec import ReuseSpec

NO_REUSE = ReuseSpec(guidance=1, blocks=1)


def check_reuse(reuse: ReuseSpec | None, denoiser: Denoiser) -> None:
    """Raise ValueError for a reuse that the denoiser cannot make."""
    family = get_family(denoiser)
    if reuse is None:
        return
    if reuse.blocks > 1 and not family.keeps_change:
        raise ValueError(f"reuse.blocks is {reuse.blocks}, but a UNet's blocks are not reused: use 1")
    if reuse.guidance > 1 and family.reads_guidance(denoiser.config):
        raise ValueError(
            f"reuse.guidance is {reuse.guidance}, but this denoiser was distilled with guidance and compares in no "
            "step: use 1"
        )


def check_autoguidance(scale: float, weak: Denoiser | None) -> None:
    """Raise ValueError for a scale that is out of range, or for which there is no weaker denoiser."""
    if not 0 <= scale < math.inf:  # false for NaN
        raise ValueError(f"autoguidance_scale is {scale}: 0 is none, more leads further away from the weaker denoiser")
    if scale > 0 and weak is None:
        raise ValueError(
            f"autoguidance_scale is {scale}, but this denoiser has no LoRAs without which it would be weaker: use 0"
        )


@dataclass(kw_only=True, slots=True)
class GuidedNetwork:
    """A denoiser with guidance for the N latents of a pass."""

    denoiser: Denoiser
    prepare: Prepare | None  # as the family chooses it
    condition: DenoiserCondition  # of N rows; with guidance by two passes of 2 N, the unconditional ones first
    hole: torch.Tensor | None  # (N, K, h, w); None: text-to-image
    masked: torch.Tensor | None  # (N, C, h, w)
    scale: float  # of guidance
    rescale: float
    reuse: ReuseSpec
    weak: GuidedNetwork | None = None
    """A weaker denoiser under the same condition, without guidance: guided steps are led away from what it says, beyond
    guidance, as far as `autoguidance_scale` says (Karras et al. 2024)."""
    autoguidance_scale: float = 0.0
    predicts: dict[bool, Predict] = field(default_factory=dict)  # compares? -> network
    difference: torch.Tensor | None = None  # conditional minus unconditional prediction, of an earlier step
    gain: torch.Tensor | None = None  # conditional minus the weak one's prediction, likewise
    change: torch.Tensor | None = None  # what the blocks did in an earlier step

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, step: int, *, is_guided: bool) -> torch.Tensor:
        """Return the prediction (N, C, h, w) for noisy latents at a step, counted from 0; `is_guided`: by a pass more
        for each side that it compares with, or by the differences of an earlier step."""
        compares = is_guided and step % self.reuse.guidance == 0
        passes_twice = compares and len(self.condition.states) > len(latents)
        predictions = self._run(latents, timestep, step, compares=passes_twice)
        if not is_guided:
            return predictions
        unconditional: torch.Tensor | None = None
        if passes_twice:
            unconditional, conditional = predictions.chunk(2)
            self.difference = conditional - unconditional if self.reuse.guidance > 1 else None
        else:
            conditional = predictions
            if self.difference is not None:
                unconditional = conditional - self.difference
        if compares and self.weak is not None:
            self.gain = conditional - self.weak.predict(latents, timestep, step, is_guided=False)
        guided = conditional
        if unconditional is not None:
            guided = apply_guidance(unconditional, conditional, self.scale, self.rescale)
        return guided if self.gain is None else guided + self.autoguidance_scale * self.gain

    def end_guidance(self, count: int) -> None:
        """Leave the condition of `count` rows alone, without guidance as an input."""
        self.condition = replace(self.condition.select_rows(slice(-count, None)), guidance=None)
        self.difference = self.gain = self.weak = None
        self.predicts.clear()

    def select_rows(self, rows: torch.Tensor, count: int) -> None:
        """Go on with some of `count` latents."""
        self.condition = self.condition.select_rows(_repeat_rows(rows, count, len(self.condition.states)))
        self.hole, self.masked = (None if part is None else part[rows] for part in (self.hole, self.masked))
        self.difference = None if self.difference is None else self.difference[rows]
        self.gain = None if self.gain is None else self.gain[rows]
        if self.weak is not None:
            self.weak.select_rows(rows, count)
        self.change = None if self.change is None else self.change[_repeat_rows(rows, count, len(self.change))]
        self.predicts.clear()

    def _run(self, latents: torch.Tensor, timestep: torch.Tensor, step: int, *, compares: bool) -> torch.Tensor:
        """Return the predictions for the conditional rows, or for all."""
        if compares not in self.predicts:
            whole = compares or len(self.condition.states) == len(latents)
            condition = self.condition if whole else self.condition.select_rows(slice(-len(latents), None))
            self.predicts[compares] = self._build_predict(condition, (latents.shape[-2], latents.shape[-1]))
        predict, rows = self.predicts[compares], (1 + compares) * len(latents)
        change = None
        if self.change is not None and step % self.reuse.blocks and len(self.change) >= rows:
            change = self.change[-rows:]
        predictions, change = predict(latents, timestep, change)
        self.change = change if self.reuse.blocks > 1 else None
        return predictions.to(latents)

    def _build_predict(self, condition: DenoiserCondition, size: tuple[int, int]) -> Predict:
        """Return the network under a condition of N or 2 N rows, for latents of that size."""
        denoiser, family, dtype = self.denoiser, get_family(self.denoiser), self.denoiser.dtype
        hole, masked = self.hole, self.masked
        if self.prepare is not None:
            hole, masked = (None if part is None else part.to(dtype) for part in (hole, masked))
            prepared = self.prepare(denoiser, condition, hole, masked, size)
            return lambda latents, timestep, change: prepared(latents.to(dtype), timestep, change)

        def predict(
            latents: torch.Tensor, timestep: torch.Tensor, change: torch.Tensor | None
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            inputs = latents
            if hole is not None:
                assert masked is not None
                inputs = family.build_inpaint_input(inputs, hole, masked)
            inputs = inputs.repeat(len(condition.states) // len(inputs), 1, 1, 1).to(dtype)
            if self.reuse.blocks == 1:
                return family.predict(denoiser, inputs, timestep, condition), None
            return family.predict_from_change(denoiser, inputs, timestep, condition, change)

        return predict


def _repeat_rows(rows: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """Return rows of `count` as rows of `length`: of as many, or of both halves of guidance."""
    return rows if length == count else torch.cat([rows, rows + count])
