"""Alignments of tiny denoisers on random shards, with a reward of the latents; `-m tests.canvas.align.subject JOB`
runs one in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from canvas.align.policy import Policy
from canvas.align.prompts import PromptGroup, PromptSource
from canvas.align.rollouts import RolloutSampler
from canvas.align.spec import PretrainingSpec, RolloutSpec
from canvas.align.training import Aligner, AlignmentData
from canvas.denoiser.loading import add_inpaint_channels, build_denoiser
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import sample_noise
from canvas.denoiser.spec import LoraSpec
from canvas.shards.rows import ShardRows, has_product, is_any_row
from canvas.train.spec import Train, Training
from tests.canvas import tiny
from tests.canvas.align.parts import CELL, OBJECTIVES, SCALE, build_params
from tests.canvas.denoiser.test_process import FLOW
from tests.components.generator_parts import CHANNELS, POOLED_WIDTH, TEXT_WIDTH

TRAINING = Training(
    effort=1.0,
    checkpoints=5,
    samples=1,
    log_every=1,
    accumulate=1,
    optimizer="adamw",
    schedule="constant",
    weight_decay=0.0,
    clip_norm=1.0,
    precision="fp32",
    channels_last=False,
    gradient_checkpointing=False,
    compile=False,
    parallel="none",
    seed=0,
)


@dataclass(frozen=True)
class RedReward:
    """How high the latents' first channel is, by `sign`; slow, so that a test can kill it."""

    sign: float = 1.0
    seconds: float = 0.0

    def score(self, latents: torch.Tensor, group: PromptGroup, images: int) -> Mapping[str, torch.Tensor]:
        time.sleep(self.seconds)
        return {"aesthetics": self.sign * latents[:, 0].mean(dim=(1, 2))}


class Log:
    """Keeps the last numbers of a run."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.values |= values

    def image(self, name: str, png: bytes) -> None:
        assert png


def build_aligner(shards: Path, objective: str, generator: str, steps: int, pretraining: PretrainingSpec) -> Aligner:
    """An alignment with a reward of its own; nothing is judged."""
    ppo = objective == "ppo"
    params = build_params(
        objective,
        generator=generator,
        baseline="batch",
        train=Train(steps=steps, batch_size=8, learning_rate=0.01, warmup_steps=0, override={}),
        lora=LoraSpec(rank=4, alpha=4, folded=False),
        rollouts=RolloutSpec(
            groups=4, images=2, steps=3, guidance_scale=1.5 if ppo else 1.0, updates=2, batch_size=8, precision="fp32"
        ),
        pretraining=pretraining,
    )
    rows = ShardRows(shards)
    selects = has_product if generator == "backdrop" else is_any_row
    train = [row for row in rows.index if selects(row) and row.split == "train"]
    masks = "product" if generator == "backdrop" else "none"
    texts = {row.pin_id: "a mug, in a forest" for row in train}
    source = PromptSource(rows, SCALE, train, texts, masks, {})
    data = AlignmentData(rows, masks, train, source, [], [], source)
    sampling: Any = None
    nothing: Any = None  # neither rewards of images nor a judge take part
    return Aligner(
        params,
        TRAINING.resolve(params.train),
        FLOW,
        sampling,
        data=data,
        rewards=nothing,
        judge=nothing,
        scale=SCALE,
        scheduler=build_training_scheduler(FLOW),
    )


def build_policy(aligner: Aligner, kind: str) -> Policy:
    """A tiny policy for random shards."""
    spec = tiny.DENOISER if kind == "unet" else tiny.TRANSFORMER
    sizes = {"latent_channels": CHANNELS, "sample_size": 8, "text_width": TEXT_WIDTH, "pooled_width": POOLED_WIDTH}
    torch.manual_seed(0)
    denoiser = build_denoiser(spec, **sizes)
    if aligner.data.masks != "none":
        denoiser = add_inpaint_channels(denoiser, CELL)
    return aligner.build_policy(denoiser)


def measure_red(aligner: Aligner, policy: Policy) -> float:
    """The mean of the first channel of images at fixed seeds."""
    source, rollouts = aligner.data.train, replace(aligner.params, **OBJECTIVES["nft"], objective="nft")
    rows = [row.row for row in source.rows if row.bucket == "64x64"][:4]
    group = source.read(rows, 2, torch.device("cpu"))
    sampler = RolloutSampler(policy, build_training_scheduler(FLOW), SCALE, rollouts, None)
    policy.update_state("old", 0.0)
    latents, _ = sampler.sample_images(group, list(range(len(group.pin_ids))))
    assert latents.shape == sample_noise(group.latent_shape, list(range(8)), torch.device("cpu")).shape
    return float(latents[:, 0].mean())


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run an alignment; return its losses and a digest of its weights."""
    torch.set_num_threads(1)
    own_step = job["objective"] == "ppo"
    pretraining = PretrainingSpec(weight=0.1, own_step=own_step, captions=1, caption_dropout=0.1)
    aligner = build_aligner(Path(job["shards"]), job["objective"], job["generator"], job["steps"], pretraining)
    policy = build_policy(aligner, job["kind"])
    reward = RedReward(seconds=job.get("seconds", 0.0))
    result = aligner.train(policy, Path(job["checkpoints"]), Log(), reward, None)
    return {"losses": result.losses, "weights": policy.copy_weights()}


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
