"""What the segmenter is, how its training images vary, and how its mattes follow an image's edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from canvas.ranges import Count, Natural, NetworkSide, NonNegative, PartialShare, Positive, Share
from canvas.train.spec import TrainableParams


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetSpec:
    """The demo's network."""

    image_size: NetworkSide  # side in pixels of the square that images are resized to
    channels: tuple[Count, Count, Count, Count]  # feature maps of the way up, at strides 2, 4, 8 and 16


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec:
    """How training images are varied."""

    paste: Share  # probability that the product is pasted into another scene
    zoom: Annotated[float, Ge(1)]  # images and products are scaled by up to this factor, either way
    shift: Annotated[float, Ge(0), Le(0.5)]  # images and products are moved by up to this fraction of the side
    turn: NonNegative  # pasted products are turned by up to this many degrees
    colour: PartialShare  # largest change of brightness, contrast and each channel


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSpec:
    """How a matte of the network's resolution is brought to the image's."""

    radius: Natural  # of the guided filter in pixels of the image; 0: bilinear alone
    epsilon: Positive  # of the guided filter: variance of luma (0..1) that counts as an edge


@dataclass(frozen=True, kw_only=True, slots=True)
class MattingSpec:
    """How a public model is read that puts out one map, how much of each pixel is product, and no classes."""

    output: Literal["logits", "opacity"]  # what its map holds; opacity is 0..1
    map: Literal["first", "last"]  # which of several maps is the result: BiRefNet's last, ISNet's first
    file: str | None  # the ONNX file of the repository; null: a model of transformers, or of its own code
    image_size: Count | None  # side in pixels of the square that images are resized to
    image_mean: tuple[Share, Share, Share] | None  # of each channel, 0..1
    image_std: tuple[Positive, Positive, Positive] | None  # null, as image_size and image_mean: as the repository says
    trust_remote_code: bool  # whether Python code that lies beside the weights may run: read it first


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterTrainingSpec(TrainableParams):
    """Where the segmenter comes from, how it is trained and how it is scored."""

    init_from: str | None  # path or hub id OWNER/NAME@REVISION of a public segmenter; null: the U-Net below
    background: tuple[str, ...]  # classes of an untrained init_from model that are no product
    matting: MattingSpec | None  # how a matting model is read; null: init_from is a semantic segmentation model
    unet: UNetSpec | None  # null with init_from
    augment: AugmentSpec | None  # null with train: null
    threshold: Share  # alpha from which a pixel is product, when scored
    score_batch: Count  # images at once, when scored

    def __post_init__(self) -> None:
        if (self.init_from is None) == (self.unet is None):
            raise ValueError("train_segmenter: give init_from or unet, and null for the other")
        if (self.train is None) != (self.augment is None):
            raise ValueError("train_segmenter: give both train and augment, or null for both")
        if self.train is None and self.init_from is None:
            raise ValueError("train_segmenter.train is null: a U-Net from scratch needs training, or name init_from")
        if self.train is not None and self.background:
            raise ValueError(
                f"train_segmenter.background is {list(self.background)}: training replaces the classes by one, "
                "product; give [] or set train and augment to null"
            )
        if self.matting is not None and (self.init_from is None or self.train is not None or self.background):
            raise ValueError(
                "train_segmenter.matting reads a model as it is: name it in init_from, set train and augment to null "
                "and background to []"
            )
