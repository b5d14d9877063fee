"""What the reward model is and how it is trained; params of stages, so light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from canvas.ranges import Count, Natural, NonNegative, PartialShare, Share
from canvas.train.spec import Train, TrainableParams

HEADS = ("defects", "fidelity", "aesthetics", "overall", "prompted")
"""Questions that the model answers, in the order of its logits; higher is better in all. defects: free of them;
fidelity: the product is as it was; overall: which image people would take; prompted: the same, knowing the prompt."""

REWARD_FOLDER = "reward"
"""Folder of the reward model in an assembled pipeline; only who chooses among candidates loads it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSpec:
    """The network."""

    image_size: Count  # side in pixels of the square that images are resized to, a multiple of 2 ** len(channels)
    channels: Annotated[tuple[Count, ...], MinLen(2)]  # feature maps at strides 2, 4, 8, ...; two or more
    layers_per_block: Natural  # convolutions of a stride after its first one
    hidden: Count  # width of the layer before the answers
    text_encoder: Literal["first", "second"]  # of section `text`: its text tower, frozen, reads prompts
    dropout: PartialShare  # of the activations before the answers is dropped in training
    photo_layers: tuple[Natural, ...]  # of canvas.features.photographs that it sees the image by, too; []: it does not
    init_from: str | None  # a directory that train_reward wrote, and the rest as there; untrained also a directory or
    # hub id (OWNER/NAME@REVISION) of a CLIP, SigLIP or PickScore of transformers

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or self.image_size % 2 ** len(self.channels):
            raise ValueError(
                f"reward needs two or more channels and an image_size that 2 ** {len(self.channels)} divides, not "
                f"{list(self.channels)} and {self.image_size}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardTrainingSpec(TrainableParams):
    """How the reward model is trained and scored."""

    train: Train | None  # null: the stage is skipped; reward.init_from passes through, or there is no reward model
    pins: Count  # with a product, at most
    scenes: Count  # images to place products in, at most
    comparisons: Count  # to train on
    held_out_kinds: tuple[str, ...]  # corruptions that training never shows
    held_out_backgrounds: tuple[str, ...]  # in words, as captions say them: training never shows them either
    scored_pins: Count  # of held-out products, at most
    scored_each: Count  # comparisons of each kind of corruption
    human_share: Share  # of people's comparisons in every batch, once there are enough; 0: none
    min_human: Count  # judgments by people that are enough to train on
    absolute_weight: NonNegative  # of the absolute loss beside the pairwise one
    background_weight: NonNegative  # of the loss of which backgrounds images show, likewise
    score_batch: Count  # comparisons at once, when scored
    sheet_pins: Count  # rows of the sheet
    seed: Natural  # of the comparisons

    def __post_init__(self) -> None:
        if self.train is None or not self.human_share:
            return
        if not 1 <= self.human_share * self.train.batch_size <= self.train.batch_size:
            raise ValueError(
                f"train_reward.human_share is {self.human_share}: it must be 0, or at most 1 and at least one of the "
                f"{self.train.batch_size} of a batch"
            )


def estimate_reward_memory(train_reward: RewardTrainingSpec, reward: RewardSpec) -> Iterator[tuple[str, int, str]]:
    """Yield what a training holds: products with their masks, and scenes twice, once without a product."""
    if train_reward.train is None:
        return
    pins, scored, scenes, side = train_reward.pins, train_reward.scored_pins, train_reward.scenes, reward.image_size
    size = (4 * (pins + 2 * scored) + 3 * 2 * scenes) * side**2
    yield "", size, f"(4 x ({pins:,} + 2 x {scored:,}) + 3 x 2 x {scenes:,} scenes) x {side}^2 bytes"
