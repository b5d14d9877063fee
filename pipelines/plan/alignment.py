"""What an alignment with rewards needs: the memory of its GPU, and how long it samples, trains and is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from canvas.align.spec import AlignParams
from canvas.clip.model import compute_text_widths
from canvas.denoiser.family import SIZE_IDS
from canvas.denoiser.spec import count_comparisons
from canvas.train.spec import TrainSpec
from pipelines.plan.activations import Activations, measure_activations, run_denoiser
from pipelines.plan.durations import GPU_FLOPS, Row, count_forward_flops
from pipelines.plan.memory import GIB, RESERVED, SizeRow, append_total, build_denoiser_rows, count_parameters
from pipelines.plan.profile import Models, Profile

PAPER_HOURS = 128 * 12.1
"""GPU hours of 1,000 steps of 2,048 images on 128 A100, 50 guided steps each at 512 px (Zhang et al. 2024)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentPlan:
    """The alignment of one profile, on one GPU. Its LoRA counts as train_backdrop's."""

    params: AlignParams
    train: TrainSpec
    models: Models
    activations: Activations  # of one image
    forward_flops: int  # likewise
    decoding_flops: int  # likewise
    judged_passes: int  # of the denoiser, for a judged image
    sample_numbers: int  # of a round's sample: what it was sampled after, and latents

    @classmethod
    def build(cls, profile: Profile, models: Models) -> AlignmentPlan | None:
        """Return it, or None where the stage is skipped."""
        params = profile.align
        if params.train is None:
            return None
        forward = partial(run_denoiser, models.lora, profile.latent_side)
        cells = profile.latent_side
        with torch.device("meta"):
            latents = torch.zeros(1, profile.vae.latent_channels, cells, cells)
        sampling, text = profile.sampling, profile.text
        width, pooled = compute_text_widths(text)
        channels = profile.vae.latent_channels
        hole = 1 if profile.encode.holes == "cells" else profile.vae.factor**2
        kept = channels * (3 if params.ppo else 2) + hole  # the product's latents; the image's, or those of a step
        return cls(
            params=params,
            train=profile.training.resolve(params.train),
            models=models,
            activations=measure_activations(models.lora, forward),
            forward_flops=count_forward_flops(models.lora, call=forward),
            decoding_flops=count_forward_flops(models.vae, latents, call=models.vae.decode),
            judged_passes=sampling.steps + count_comparisons(sampling),
            sample_numbers=text.first.context_length * width + pooled + SIZE_IDS + kept * cells**2,
        )

    @property
    def images(self) -> int:
        """Images that are rolled out, if the guard ends nothing."""
        rollouts = self.params.rollouts
        return -(-self.train.steps // self.params.steps_per_round) * rollouts.groups * rollouts.images

    def build_memory_rows(self) -> list[SizeRow]:
        """Return what the GPU holds: the denoiser in training, two more states of the LoRA, and what scores images."""
        trained = count_parameters(self.models.lora, trainable=True)
        scoring = count_parameters(self.models.vae) + count_parameters(self.models.reward)
        *rows, _ = build_denoiser_rows(
            self.models.lora, self.activations, self.train, images=self.train.batch_size, gpus=1
        )
        return append_total(
            [
                *rows,
                ("policies", f"{trained:,} x 2 states x 4 bytes", trained * 8.0),
                (
                    "round",
                    f"{self.params.samples:,} samples x {self.sample_numbers:,} x 4 bytes",
                    self.params.samples * self.sample_numbers * 4.0,
                ),
                ("scoring", f"{scoring:,} x 4 bytes, autoencoder and reward model", scoring * 4.0),
            ]
        )

    def build_duration_rows(self) -> list[Row]:
        """Return the hours of each part, and their arithmetic."""
        spec, guard, images = self.params.rollouts, self.params.guard, self.images
        guided = 2 if spec.guidance_scale != 1 else 1
        share = count_parameters(self.models.lora, trainable=True) / count_parameters(self.models.lora)
        trained = 2 + min(1.0, share) + self.train.gradient_checkpointing  # forward, and backward through frozen layers
        policy = (guided if self.params.ppo else 1) * (1 + trained + bool(self.params.reference.weight))
        passes = policy + (0 if self.params.pretraining.own_step else trained)
        samples = self.train.steps * self.train.batch_size
        checks = self.train.steps // self.train.sample_every + 1
        judged = (checks * guard.prompts + 2 * guard.final_prompts) * guard.images
        sampling = self._count_hours(images, spec.steps * guided)
        training = samples * passes * self.forward_flops / GPU_FLOPS / 3600
        judging = self._count_hours(judged, self.judged_passes)
        total = sampling + training + judging
        flop = f"{self.forward_flops / 1e12:,.3f} TFLOP"
        decoded = f"{self.decoding_flops / 1e12:,.3f} of decoding"
        return [
            ("sampling", f"{sampling:,.1f} hours", f"{images:,} images x {spec.steps * guided} x {flop} + {decoded}"),
            ("training", f"{training:,.1f} hours", f"{samples:,} samples x {passes:.2f} passes of {flop}"),
            ("judging", f"{judging:,.1f} hours", f"{judged:,} images x {self.judged_passes} x {flop} + {decoded}"),
            ("images an hour", f"{images / total:,.0f}", "rolled out, with training and judging, on one GPU"),
            ("the paper", f"{PAPER_HOURS:,.0f} GPU hours", "1,000 steps of 2,048 images at 512 px: 128 A100 x 12.1 h"),
            ("together", f"{total:,.1f} hours", f"one GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s, assumed"),
        ]

    def explain_misfit(self, gpu_memory: float) -> str | None:
        """Return why it does not fit a GPU of so many bytes, and the fix; None: it fits."""
        total = self.build_memory_rows()[-1][2] + RESERVED
        if total <= gpu_memory:
            return None
        fix = "lower its train.batch_size, and raise rollouts.updates as much"
        if not self.train.gradient_checkpointing:
            fix = f"set gradient_checkpointing to true in its train.override, or {fix}"
        return f"align needs {total / GIB:.1f} GiB of a GPU that has {gpu_memory / GIB:.1f}: {fix}"

    def _count_hours(self, images: int, passes: int) -> float:
        return images * (passes * self.forward_flops + self.decoding_flops) / GPU_FLOPS / 3600


def list_alignment_misfits(plan: AlignmentPlan | None, gpu_memory: float) -> Iterator[str]:
    """Yield why the alignment, if there is one, does not fit a GPU of so many bytes, with the fix."""
    if plan is not None and (reason := plan.explain_misfit(gpu_memory)) is not None:
        yield reason
