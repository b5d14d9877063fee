"""The guard of an alignment: a judge that no reward is made of sees images of held-out prompts while rewards rise.

Rewards that are trained on go on rising after the images have begun to suffer. So the judge ends the run once it has
found nothing better for a while, the best policy is taken, and it is kept only if the judge prefers it to the start on
prompts and seeds of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from diffusers import SchedulerMixin
from numpy.typing import NDArray
from PIL import Image

from canvas.align.policy import Policy
from canvas.align.prompts import PromptSource
from canvas.align.rewards import RewardSet
from canvas.align.spec import AlignParams
from canvas.denoiser.sampling import LatentSampler, sample_noise
from canvas.denoiser.spec import SamplingSpec
from canvas.denoiser.training import TrainingLog
from canvas.pins.images import draw_contact_sheet, encode_png
from canvas.shards.rows import ShardRow, batch_by_bucket
from canvas.train.checkpoint import DamagedError, get_step_directory, read_checkpoint, write_checkpoint
from canvas.train.draws import mix_seed
from canvas.vae.model import LatentScale

SHEET_PROMPTS = 8
"""Prompts whose first images are drawn."""

CHECK_STREAM, FINAL_STREAM = 13, 14
"""Streams of random numbers beside those of the training."""


@dataclass(frozen=True, slots=True)
class JudgedImages:
    """Images of held-out prompts, prompt by prompt."""

    images: list[NDArray[np.uint8]]  # (H, W, 3) each, of any frame
    prompts: list[str]
    rows: list[int]  # of the shards
    products: list[str]  # ids: images of one product are not independent
    group: int  # images of each prompt, one after the other
    rewards: Mapping[str, list[float]]  # by kind, one an image


@dataclass(frozen=True, slots=True)
class GoldScore:
    """What the judge says of a set of images."""

    gold: float  # one number, higher is better
    values: tuple[float, ...]  # an image each, whose mean `gold` is; NaN: does not count
    columns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # what else it says of each, likewise
    figures: Mapping[str, float] = field(default_factory=dict)  # and of all together


@dataclass(frozen=True, slots=True)
class GoldVerdict:
    """Whether the aligned generator is better than it was."""

    is_better: bool
    reason: str  # in a sentence
    figures: Mapping[str, float]


class GoldJudge(Protocol):
    """Judges by networks that no reward and no loss of the generator uses."""

    def judge(self, images: JudgedImages) -> GoldScore:
        """Return the score of images."""

    def compare(self, before: GoldScore, after: GoldScore, images: JudgedImages) -> GoldVerdict:
        """Compare scores of the same prompts and seeds before and after the alignment; `images` are of either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What a check of the policy says."""

    step: int
    gold: float
    reward: float  # weighted mean of how far the rewards rose since the start, in deviations of the start's images
    rewards: Mapping[str, float]  # means by kind
    deviations: Mapping[str, float]  # by kind
    figures: Mapping[str, float]
    alarm: bool  # rewards are above the start's, gold below


@dataclass(frozen=True, slots=True)
class HeldOutSampler:
    """Samples images of held-out prompts, always the same ones at the same seeds, as the generator is used but for
    autoguidance: training holds no denoiser without LoRAs."""

    source: PromptSource
    scheduler: SchedulerMixin
    scale: LatentScale
    sampling: SamplingSpec
    rewards: RewardSet
    images: int  # of each prompt
    seed: int

    def sample(self, policy: Policy, rows: Sequence[ShardRow], stream: int) -> JudgedImages:
        """Sample and score images after rows of the shards, by the policy as it is."""
        sampling, images = self.sampling, self.images
        device = next(policy.parameters()).device
        sampler = LatentSampler(
            denoiser=policy.denoiser,
            scheduler=self.scheduler,
            scale=self.scale,
            steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            guidance_stop=sampling.guidance_stop,
            reuse=sampling.reuse,
            precision=sampling.precision,
        )
        pixels: list[NDArray[np.uint8]] = []
        prompts: list[str] = []
        products: list[str] = []
        numbers: list[int] = []
        rewards: dict[str, list[float]] = {kind: [] for kind in self.rewards.kinds}
        for batch in batch_by_bucket(rows, max(1, sampling.batch_size // images)):
            group = self.source.read(batch, images, device)
            seeds = [mix_seed(self.seed, stream, row, image) for row in batch for image in range(images)]
            latents = sampler.sample(sample_noise(group.latent_shape, seeds, device), group.condition)
            decoded = self.rewards.decode(latents, group)
            for kind, values in self.rewards.score_images(decoded, group, images).items():
                rewards[kind] += values.tolist()
            pixels += list(decoded.permute(0, 2, 3, 1).cpu().numpy())
            prompts += group.prompts
            products += [self.source.products.get(pin_id, pin_id) for pin_id in group.pin_ids]
            numbers += [row for row in batch for _ in range(images)]
        return JudgedImages(pixels, prompts, numbers, products, images, rewards)


class Guard:
    """Checks the policy every so many steps; as `stop` of `canvas.train.loop.fit`.

    Each check is written with the policy's weights into `folder`, where a run that was killed finds it again.
    """

    def __init__(
        self,
        params: AlignParams,
        sampler: HeldOutSampler,
        judge: GoldJudge,
        rows: Sequence[ShardRow],
        *,
        every: int,
        folder: Path,
        log: TrainingLog,
    ) -> None:
        self.params, self.sampler, self.judge, self.rows = params, sampler, judge, rows
        self.every, self.folder, self.log = every, folder, log
        self.checks: dict[int, Check] = {}

    def __call__(self, policy: Policy, step: int) -> bool:
        """Check the policy after `step` steps if it is time; return whether training should end."""
        if step % self.every:
            return False
        for earlier in range(0, step + 1, self.every):
            if earlier not in self.checks:
                self.checks[earlier] = self._read_check(earlier) or self._make_check(policy, earlier, step)
        return self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether so many checks as the guard has patience for were no better than the best."""
        return bool(self.checks) and max(self.checks) - self.best.step >= self.params.guard.patience * self.every

    @property
    def best(self) -> Check:
        """The check of the highest gold, the first of equals."""
        return max(self.checks.values(), key=lambda check: (check.gold, -check.step))

    @property
    def alarms(self) -> list[int]:
        """Steps at which rewards were above the start's and gold below."""
        return [check.step for check in self.checks.values() if check.alarm]

    def load_best(self, policy: Policy) -> None:
        """Give the policy the weights of the best check."""
        policy.load_weights(read_checkpoint(get_step_directory(self.folder, self.best.step))[0]["lora"])

    def judge_final(
        self, policy: Policy, rows: Sequence[ShardRow]
    ) -> tuple[GoldVerdict, JudgedImages, JudgedImages, dict[str, float]]:
        """Compare the policy with the start on prompts and at seeds that no check saw.

        Returns:
            The verdict, the start's images and the policy's, and means of both by name.
        """
        with policy.use_state("start"):
            before = self.sampler.sample(policy, rows, FINAL_STREAM)
        after = self.sampler.sample(policy, rows, FINAL_STREAM)
        scores = self.judge.judge(before), self.judge.judge(after)
        figures = {
            f"{name}_{side}": value
            for side, images, score in (("before", before, scores[0]), ("after", after, scores[1]))
            for name, value in {
                "gold": score.gold,
                **score.figures,
                **{f"reward_{kind}": float(np.mean(values)) for kind, values in images.rewards.items()},
            }.items()
        }
        return self.judge.compare(*scores, before), before, after, figures

    def _make_check(self, policy: Policy, step: int, now: int) -> Check:
        assert step == now, f"the check of step {step} is missing in {self.folder}, and the policy is at step {now}"
        images = self.sampler.sample(policy, self.rows, CHECK_STREAM)
        score = self.judge.judge(images)
        means = {kind: float(np.mean(values)) for kind, values in images.rewards.items()}
        deviations = {kind: float(np.std(values)) for kind, values in images.rewards.items()}
        start = self.checks.get(0)
        reward = 0.0 if start is None else self._compute_rise(start, means)
        check = Check(
            step=step,
            gold=score.gold,
            reward=reward,
            rewards=means,
            deviations=deviations,
            figures=dict(score.figures),
            alarm=start is not None and reward > 0 and score.gold < start.gold,
        )
        write_checkpoint(get_step_directory(self.folder, step), {"lora": policy.copy_weights()}, asdict(check))
        held_out = {f"held_out_{kind}": value for kind, value in means.items()}
        self.log.metrics({"gold": check.gold, "reward": reward, "alarm": float(check.alarm), **held_out}, step)
        self.log.image(f"samples-{step:06d}", draw_images([images], SHEET_PROMPTS))
        return check

    def _read_check(self, step: int) -> Check | None:
        try:
            return Check(**read_checkpoint(get_step_directory(self.folder, step))[1])
        except DamagedError:
            return None

    def _compute_rise(self, start: Check, means: Mapping[str, float]) -> float:
        terms = self.params.terms
        rises = [
            term.weight * (means[term.kind] - start.rewards[term.kind]) / max(start.deviations[term.kind], 1e-6)
            for term in terms
        ]
        return float(sum(rises) / sum(term.weight for term in terms))


def draw_images(sides: Sequence[JudgedImages], count: int) -> bytes:
    """Draw the first image of `count` prompts as PNG; two sides, at the same seeds, are before and after."""
    first = sides[0]
    places = range(0, min(len(first.images), count * first.group), first.group)
    images = [Image.fromarray(side.images[place]) for side in sides for place in places]
    labels = [first.prompts[place] for place in places] + ["aligned"] * len(places) * (len(sides) - 1)
    return encode_png(draw_contact_sheet(images, labels, columns=len(places), cell=128))
