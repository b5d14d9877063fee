"""Sizes and training of the unified visual embedding; params of stages, so light to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge

from canvas.clip.spec import ClipSpec, TextSpec
from canvas.pins.frames import CropSpec
from canvas.ranges import Count, NonNegative, Positive
from canvas.train.spec import TrainableParams

TASKS = ("scene", "product", "category", "board")

EmbeddingSource = Literal["uve", "clip", "uve+clip"]  # embeddings that stand side by side


@dataclass(frozen=True, kw_only=True, slots=True)
class UveSpec:
    """The network."""

    trunk: str  # any name of timm.list_models(); transformers: the image tower in init_from, a CLIP, SigLIP or DINO
    trunk_args: dict[str, int | float | bool | str | list[int] | None]  # of timm.create_model; null: its default
    image_size: Annotated[int, Ge(32)] | None  # side in pixels of the square that images are resized to; null: its own
    embed_dim: Count | None  # a multiple of 8: codes are whole bytes; null: the trunk's own width, without a projection
    init_from: str | None  # "timm": its weights of the trunk; or a directory or hub id of train_uve, timm, transformers

    def __post_init__(self) -> None:
        if self.embed_dim is not None and (self.embed_dim < 8 or self.embed_dim % 8):
            raise ValueError(f"uve.embed_dim is {self.embed_dim}: it must be a multiple of 8")
        arguments = {key: value for key, value in self.trunk_args.items() if value is not None}
        object.__setattr__(self, "trunk_args", arguments)  # the dataclass is frozen

    def get_sizes(self) -> tuple[int, int]:
        """Return side and width where the params say them; a plan reads no weights, so ValueError for null."""
        if self.image_size is None or self.embed_dim is None:
            raise ValueError(
                f"uve.image_size is {self.image_size} and uve.embed_dim {self.embed_dim}: a plan needs numbers, the "
                "trunk's own"
            )
        return self.image_size, self.embed_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskWeights:
    """Weight of each task's loss in the sum; 0: the task is not trained."""

    scene: NonNegative  # that the image shows, 0 or more, as all of them
    product: NonNegative  # that is sold
    category: NonNegative  # of the product
    board: NonNegative  # that the pin is on

    def __post_init__(self) -> None:
        if min(self.to_dict().values()) < 0 or not any(self.to_dict().values()):
            raise ValueError(f"tasks must have weights of 0 or more, one of them above 0, not {self.to_dict()}")

    def to_dict(self) -> dict[str, float]:
        """Return task -> weight."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainUveParams(TrainableParams):
    """What the embedding is trained on, and scored with."""

    tasks: TaskWeights  # weights of the losses
    pins: Count  # to train on, at most: they are held in memory
    min_pins: Count  # of a class; pins of smaller ones count as unlabelled
    temperature: Positive  # of the softmax over classes
    crops: CropSpec  # random crops of the images
    scored_pins: Count  # held-out ones, at most
    catalogue_pins: Count  # of the train split that they are searched among, too, at most
    score_batch: Count  # images at once, when scored
    sheet_pins: Count  # on the sheet, each with the held-out pins nearest to it


def compute_embedding_width(source: str, uve: UveSpec, clip: ClipSpec) -> int:
    """Return the numbers of an image's embedding "uve", "clip" or "uve+clip"."""
    return sum(clip.embed_dim if name == "clip" else uve.get_sizes()[1] for name in source.split("+"))


def estimate_uve_memory(train_uve: TrainUveParams, uve: UveSpec, text: TextSpec) -> Iterator[tuple[str, int, str]]:
    """Yield what `train_uve` holds: images as squares, a little larger than the crops while it trains."""
    network_side = uve.get_sizes()[0]
    if train_uve.train is not None:
        side = round(network_side * train_uve.crops.zoom)
        yield "", train_uve.pins * 3 * side**2, f"{train_uve.pins:,} x 3 x {side}^2 bytes"
    scored, catalogue = train_uve.scored_pins, train_uve.catalogue_pins
    side = max(network_side, text.second.image_size)
    yield "scoring", (scored + catalogue) * 3 * side**2, f"({scored:,} + {catalogue:,}) x 3 x {side}^2 bytes"
