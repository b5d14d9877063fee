"""What trains of the generator: the memory of its GPUs, and how long each stage takes on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from canvas.train.spec import TrainSpec
from lifecycle.declare.stage import Stage
from pipelines.cluster import Cluster
from pipelines.plan.activations import Activations, measure_activations, run_denoiser
from pipelines.plan.durations import GPU_FLOPS, Row, count_forward_flops
from pipelines.plan.gpus import DecoderTraining, build_replicated_rows, compute_decoder_gpus
from pipelines.plan.memory import GIB, RESERVED, SizeRow, build_denoiser_rows, count_parameters, explain_misfit
from pipelines.plan.profile import Models, Profile, compute_images_per_pass

DENOISER_STAGES = ("train_base", "train_inpaint", "train_backdrop", "tune_engaged", "train_ip_adapter")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRun:
    """The training of one stage."""

    stage: str
    title: str
    model: nn.Module  # on the meta device
    train: TrainSpec
    activations: Activations  # of one image
    forward_flops: int  # likewise

    def build_memory_rows(self, gpus: int) -> tuple[list[SizeRow], int]:
        """Return what each of so many GPUs holds, and how many images it works on at once."""
        images = compute_images_per_pass(self.stage, self.train, gpus)
        return build_denoiser_rows(self.model, self.activations, self.train, images=images, gpus=gpus), images

    def compute_hours(self, gpus: int) -> tuple[float, str]:
        """Return hours and their arithmetic: a backward pass is two forward ones, one where a layer is frozen."""
        share = count_parameters(self.model, trainable=True) / count_parameters(self.model)
        passes = 2 + min(1.0, share) + self.train.gradient_checkpointing
        images = self.train.steps * self.train.batch_size
        return images * passes * self.forward_flops / GPU_FLOPS / gpus / 3600, (
            f"{self.train.steps:,} x {self.train.batch_size:,} images x {passes:.2f} passes of "
            f"{self.forward_flops / 1e12:,.3f} TFLOP on {gpus} GPUs"
        )


def build_denoiser_runs(profile: Profile, models: Models) -> list[DenoiserRun]:
    """Return the trainings of the stages whose `train` is not null. A LoRA counts as train_backdrop's, the image
    prompts' adapter as a LoRA."""
    measures: dict[bool, tuple[Activations, int]] = {}
    runs = []
    for stage in DENOISER_STAGES:
        if (train := profile.resolve(getattr(profile, stage))) is None:
            continue
        is_whole = stage in ("train_base", "train_inpaint")
        model = models.denoiser if stage == "train_base" else models.inpaint if is_whole else models.lora
        title = "all weights" if is_whole else "a LoRA, base frozen"
        if is_whole not in measures:
            sample = models.inpaint if is_whole else models.lora
            forward = partial(run_denoiser, sample, profile.latent_side, profile.text_tokens)
            measures[is_whole] = measure_activations(sample, forward), count_forward_flops(sample, call=forward)
        activations, flops = measures[is_whole]
        runs.append(
            DenoiserRun(
                stage=stage, title=title, model=model, train=train, activations=activations, forward_flops=flops
            )
        )
    return runs


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRun:
    """The training of the conditional decoder on the GPUs of one machine."""

    training: DecoderTraining
    activations: Activations
    train: TrainSpec
    gpus: int
    images: int  # that each GPU works on at once

    @classmethod
    def build(cls, profile: Profile, models: Models, machine_gpus: int) -> DecoderRun | None:
        """Return it, or None where the stage does not train."""
        if profile.train_decoder.train is None:
            return None
        gpus, images = compute_decoder_gpus(profile, machine_gpus)
        training = DecoderTraining.build(profile, models)
        train = profile.training.resolve(profile.train_decoder.train)
        activations = training.measure_activations()
        return cls(training=training, activations=activations, train=train, gpus=gpus, images=images)

    def build_memory_rows(self) -> list[SizeRow]:
        return build_replicated_rows(self.training, self.activations, self.images, self.gpus)

    def compute_hours(self) -> tuple[float, str]:
        flops = count_forward_flops(nn.Identity(), call=self.training.compute_loss)
        images = self.train.steps * self.train.batch_size
        return images * 3 * flops / GPU_FLOPS / self.gpus / 3600, (
            f"{self.train.steps:,} x {self.train.batch_size:,} images x 3 passes of {flops / 1e12:,.3f} TFLOP on "
            f"{self.gpus} GPUs, beside generating"
        )

    def explain_misfit(self, gpu_memory: float) -> str | None:
        """Return why it does not fit GPUs of so many bytes, and the fix; None: it fits."""
        total = self.build_memory_rows()[-1][2] + RESERVED
        if total <= gpu_memory:
            return None
        least = total - (self.images - 1) * self.activations.bytes
        fix = "train null: the autoencoder's own decoder stays"
        if least <= gpu_memory:
            fix = f"train.override {{accumulate: {self.train.batch_size // self.gpus}}}"
        return (
            f"train_decoder needs {total / GIB:.1f} GiB of a GPU that has {gpu_memory / GIB:.1f}, for {self.images} "
            f"images at once: set train_decoder.{fix}"
        )


def parse_hours(rows: Sequence[Row]) -> float:
    """Return the hours of the last row that says some."""
    return float(next(value for _, value, _ in reversed(rows) if value.endswith("hours")).split()[0].replace(",", ""))


def list_misfits(
    runs: Sequence[DenoiserRun], decoder: DecoderRun | None, *, gpus: int, gpu_memory: float
) -> Iterator[str]:
    """Yield why trainings do not fit the memory of their GPUs, with the fix."""
    for run in runs:
        reason = explain_misfit(run.stage, run.model, run.activations, run.train, gpus=gpus, gpu_memory=gpu_memory)
        if reason is not None:
            yield reason
    if decoder is not None and (reason := decoder.explain_misfit(gpu_memory)) is not None:
        yield reason


def list_late_stages(hours: Mapping[str, float], stages: Sequence[Stage[Any]], cluster: Cluster) -> Iterator[str]:
    """Yield the stages that their machine class would stop before they end, with the fix."""
    classes = {stage.name: stage.machine for stage in stages}
    for stage, needed in hours.items():
        limit = getattr(cluster.machines, classes[stage]).timeout_seconds / 3600
        if needed > limit:
            yield (
                f"{stage} takes {needed:,.0f} hours, and machine class {classes[stage]!r} stops it after {limit:,.0f}: "
                f"raise its timeout_seconds in cluster.yaml to {needed * 3600:,.0f} or more"
            )
