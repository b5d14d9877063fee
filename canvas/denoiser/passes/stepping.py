"""The denoiser under the condition of latents that are on their way, and what later steps take over from earlier ones.

N: latents in a pass, C: latent channels, h and w: latent size.
"""

from __future__ import annotations

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
    predicts: dict[bool, Predict] = field(default_factory=dict)  # compares? -> network
    difference: torch.Tensor | None = None  # conditional minus unconditional prediction, of an earlier step
    change: torch.Tensor | None = None  # what the blocks did in an earlier step

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, step: int, *, is_guided: bool) -> torch.Tensor:
        """Return the prediction (N, C, h, w) for noisy latents at a step, counted from 0; `is_guided`: by two passes,
        or by one and the difference of an earlier step."""
        compares = is_guided and (step % self.reuse.guidance == 0 or self.difference is None)
        predictions = self._run(latents, timestep, step, compares=compares)
        if not is_guided:
            return predictions
        if compares:
            unconditional, conditional = predictions.chunk(2)
            self.difference = conditional - unconditional if self.reuse.guidance > 1 else None
        else:
            assert self.difference is not None
            unconditional, conditional = predictions - self.difference, predictions
        return apply_guidance(unconditional, conditional, self.scale, self.rescale)

    def end_guidance(self, count: int) -> None:
        """Leave the condition of `count` rows alone, without guidance as an input."""
        self.condition = replace(self.condition.select_rows(slice(-count, None)), guidance=None)
        self.difference = None
        self.predicts.clear()

    def select_rows(self, rows: torch.Tensor, count: int) -> None:
        """Go on with some of `count` latents."""
        self.condition = self.condition.select_rows(_repeat_rows(rows, count, len(self.condition.states)))
        self.hole, self.masked = (None if part is None else part[rows] for part in (self.hole, self.masked))
        self.difference = None if self.difference is None else self.difference[rows]
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
