"""How a generator is aligned with rewards: params of stages, so this module is light to import."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from canvas.denoiser.spec import LoraSpec, PassSpec
from canvas.pins.frames import FrameSpec
from canvas.ranges import Count, GuidanceScale, NonNegative, PartialShare, Positive
from canvas.shards.spec import EncodingSpec, EngagementRule, estimate_index_memory
from canvas.train.spec import Train, TrainableParams

Generator = Literal["backdrop", "base"]
"""What is aligned: the generator of backdrops with its LoRAs, or text-to-image."""

RewardKind = Literal["aesthetics", "defects", "overall", "prompt", "growth", "diversity", "parity"]
GROUP_REWARDS = ("diversity", "parity")
"""Rewards of an image among the others of its prompt: they describe a distribution."""

MODEL_REWARDS = ("aesthetics", "defects", "overall", "prompt")
"""Rewards that the reward model gives."""

EVIDENCE_FILE = "alignment.json"
"""Beside the LoRA, and in the pipeline that has it: the generator that it is for, and the judge's figures. No time is
in it: models of equal weights have equal digests."""

ENCODED_PIN_BYTES = 400_000
"""Bytes of a pin's image and matte, as the tables hold them: assumed."""


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One of the rewards."""

    kind: RewardKind
    weight: float  # of its advantage in the steps in which it counts
    share: float  # of the steps; 1: all of them. Those below 1 take turns


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutSpec(PassSpec):
    """Images sampled from the policy, round after round."""

    groups: Count  # prompts of a round, all in frames of one size
    images: Annotated[int, Ge(2)]  # of each prompt
    steps: Count  # of the sampler
    guidance_scale: GuidanceScale  # 1: none; ppo trains with it, awm and nft without
    updates: Count  # optimizer steps on the images of a round


@dataclass(frozen=True, kw_only=True, slots=True)
class PpoSpec:
    """Policy gradient over the sampler's steps (Zhang et al. 2024, Large-scale Reinforcement Learning for Diffusion
    Models)."""

    noise: Annotated[float, Gt(0), Le(2)]  # DDIM's eta, 1: as much as DDPM adds; of a flow the level of its SDE
    timesteps: Count  # random ones of each image that are trained on
    clip: Positive  # of the ratio of likelihoods from 1; 1e-4 for the mean over the latents' dimensions


@dataclass(frozen=True, kw_only=True, slots=True)
class AwmSpec:
    """Advantage-weighted matching: the denoising loss in the likelihood's stead."""

    power: Annotated[float, Gt(0), Le(1)]  # p: the likelihood is -(t / p) |v - target|^2p
    clip: Positive  # of the ratio of likelihoods from 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NftSpec:
    """DiffusionNFT: good images pull the prediction, bad ones push it (Zheng et al. 2025)."""

    strength: Positive  # beta: how far the two predictions lie from the old one
    clip: Positive  # of the advantage: beyond, an image is wholly good or wholly bad
    decay: PartialShare  # of the old policy, which samples: what it keeps of itself from round to round


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSpec:
    """Distance that keeps the policy near a reference: the mean squared difference of their predictions, which for
    equal noise is the KL divergence of their steps up to a factor."""

    weight: NonNegative  # 0: none
    policy: Literal["start", "average"]  # the generator before it was aligned, or an average of the policy
    decay: PartialShare  # of that average, what it keeps of itself from round to round


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainingSpec:
    """The denoising loss on real pins, which is always on."""

    weight: NonNegative  # 0 is for experiments: it shows what the rewards are hacked to
    own_step: bool  # a step of its own, before those of a round; false: a part of every step's loss
    captions: Count  # as in the other stages
    caption_dropout: PartialShare


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardSpec:
    """The judge that no reward is made of: it sees images of held-out prompts at every sample of the training."""

    prompts: Count  # held-out ones, at every check
    images: Annotated[int, Ge(2)]  # of each
    final_prompts: Count  # by which the alignment is accepted or left out, at seeds of their own
    min_diversity: NonNegative  # of the images of a prompt, in parts of the start's, for the alignment to be accepted
    patience: Count  # checks without a better one after which training ends
    engaged: EngagementRule  # of the promoted pins that images are compared with
    real_pins: Count  # of those, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignParams(TrainableParams):
    """How a generator is aligned with rewards of its own images."""

    train: Train | None  # null: the stage is skipped, no LoRA is made
    generator: Generator  # the generator of backdrops with its LoRAs, or the base, text-to-image
    lora: LoraSpec  # that is trained, on top of the others
    objective: Literal["ppo", "awm", "nft"]  # how the policy learns from advantages
    ppo: PpoSpec | None  # null unless it is the objective, and so on
    awm: AwmSpec | None
    nft: NftSpec | None
    baseline: Literal["batch", "group"]  # whose mean is taken off a reward; deviations are always a round's
    clip: Positive  # of the advantages
    rollouts: RolloutSpec
    rewards: dict[RewardKind, Positive]  # -> weight of its advantage; growth: of the product, negative
    turns: dict[RewardKind, Positive]  # rewards that take steps in turn -> their shares; the others count in all steps
    encoder: Literal["first", "second"]  # of section `text`: tells images apart for diversity, attributes for parity
    attribute: tuple[str, ...]  # its values in words, which parity makes equally frequent; []: none
    pretraining: PretrainingSpec
    reference: ReferenceSpec
    guard: GuardSpec
    pins: Count  # of the train split whose products and captions are rolled out, spread evenly

    refused: ClassVar[Mapping[str, str]] = {
        "accumulate": "the steps of a round are cut by rollouts.updates and batch_size, set it to 1",
        "compile": "weights of several policies take turns in one network, set it to false",
        "parallel": "rollouts are sampled by one process, set it to none",
    }

    def __post_init__(self) -> None:
        for name in ("ppo", "awm", "nft"):
            if (getattr(self, name) is None) == (name == self.objective):
                state, fix = ("null", "give its values") if name == self.objective else ("given", "use null")
                raise ValueError(f"align.{name} is {state}, but align.objective is {self.objective}: {fix}")
        kinds = set(self.rewards)
        if not kinds or set(self.turns) - kinds:
            raise ValueError(
                f"align.rewards are {sorted(kinds)}, align.turns {sorted(self.turns)}: give one reward or more, and "
                "turns to some of them"
            )
        if self.turns and abs(sum(self.turns.values()) - 1) > 1e-6:
            raise ValueError(f"the shares in align.turns sum to {sum(self.turns.values()):g}: give 1 in all")
        if ("parity" in kinds) != bool(self.attribute) or len(self.attribute) == 1:
            raise ValueError(
                f"align.attribute is {list(self.attribute)}: give two or more values with the reward parity, [] without"
            )
        if self.generator == "base" and "growth" in kinds:
            raise ValueError("align.rewards has growth, but align.generator is base, which keeps no product: drop it")
        if self.ppo is not None and self.ppo.timesteps >= self.rollouts.steps:
            raise ValueError(
                f"align.ppo.timesteps is {self.ppo.timesteps}: it must be below the {self.rollouts.steps} steps of "
                "rollouts, whose last adds no noise"
            )
        if self.train is not None and self.train.batch_size > self.samples:
            raise ValueError(
                f"align.train.batch_size is {self.train.batch_size}: a round has {self.samples} samples, lower it or "
                "raise rollouts.groups or images"
            )

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if the training cannot run as other sections say."""
        if self.train is None:
            return
        spec = params["training"].resolve(self.train)
        spec.refuse(**self.refused)
        if spec.parallel != "none":
            raise ValueError(f"parallel is {spec.parallel}: {self.refused['parallel']} in train.override")
        features = params["encode"].features
        losses = {
            "perceptual.encoder": params["perceptual"].encoder,
            "encode.features.network": None if features is None else features.network,
        }
        for name, used in losses.items():
            if used == self.encoder and any(kind in GROUP_REWARDS for kind in self.rewards):
                raise ValueError(
                    f"encoder is {self.encoder}, by which losses of the generator see ({name}): diversity and parity "
                    "need one that no loss uses, take another"
                )

    @property
    def passes(self) -> PassSpec:
        """Images at once, and their number format, of judged images as of rollouts."""
        return PassSpec(batch_size=self.rollouts.batch_size, precision=self.rollouts.precision)

    @property
    def kinds(self) -> tuple[RewardKind, ...]:
        """The rewards' kinds, in their order."""
        return tuple(self.rewards)

    @property
    def terms(self) -> tuple[RewardTerm, ...]:
        """The rewards, in their order."""
        return tuple(RewardTerm(kind, weight, self.turns.get(kind, 1.0)) for kind, weight in self.rewards.items())

    @property
    def samples(self) -> int:
        """Samples of a round: its images, of ppo each at its timesteps."""
        return self.rollouts.groups * self.rollouts.images * (self.ppo.timesteps if self.ppo else 1)

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.rollouts.updates + self.pretraining.own_step

    @property
    def old_decay(self) -> float:
        """What the policy that samples keeps of itself from round to round; 0: it is the current one."""
        return self.nft.decay if self.nft else 0.0


def is_for(folder: Path, generator: Generator) -> bool:
    """Return whether a directory holds a LoRA for that generator; where the stage was skipped it holds none."""
    file = folder / EVIDENCE_FILE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["generator"] == generator


def estimate_align_memory(
    align: AlignParams, encode: EncodingSpec, frames: FrameSpec, pins: int, weights: Mapping[str, int]
) -> Iterator[tuple[str, int, str]]:
    """Yield what an alignment holds: pins as the tables have them, judged images before and after and a copy while
    they are judged, the denoiser in float32, the shards' index."""
    if align.train is None:
        return
    rolled, guard = align.pins, align.guard.prompts + align.guard.final_prompts
    _, index, arithmetic = next(estimate_index_memory(encode, pins))
    denoiser = weights["models/inpaint"]
    judged, pixels = 3 * align.guard.final_prompts * align.guard.images, 3 * frames.side**2
    size = (rolled + guard) * ENCODED_PIN_BYTES + judged * pixels + 4 * denoiser + index
    held = f"({rolled:,} + {guard:,}) x {ENCODED_PIN_BYTES:,} bytes (assumed)"
    images = f"{judged:,} x {pixels:,} bytes (judged images)"
    yield "", size, f"({held} + {images} + {denoiser:,} x 4 (denoiser) + {arithmetic})"
