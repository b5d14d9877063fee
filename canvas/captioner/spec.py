"""What the demo's captioner is, how any captioner is prompted, and how one is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from canvas.ranges import Count, NetworkSide, PartialShare
from canvas.train.spec import TrainableParams


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """The demo's captioner: what it sees, and its trained decoder, a transformer."""

    image_size: NetworkSide  # side in pixels of the square that images are resized to
    vocabulary: Annotated[int, Ge(300)]  # tokens of the tokenizer, at most; 300 or more
    width: Count  # of the hidden states, a multiple of heads
    layers: Count  # transformer blocks
    heads: Count  # attention heads of a block
    dropout: PartialShare  # of the activations is dropped in training

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}: it must be a multiple of heads, which is {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptioningSpec:
    """How a captioner is prompted."""

    prompt: str | None  # for models that take one; null for the demo's own
    max_tokens: Count  # of a caption


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerTrainingSpec(TrainableParams):
    """Where the captioner comes from, how it is trained and how it is scored."""

    init_from: str | None  # path or hub id OWNER/NAME@REVISION of a public captioner, used as it is; null: train one
    asking: CaptioningSpec  # how it is prompted
    decoder: DecoderSpec | None  # null with init_from, as are train and drop
    drop: PartialShare | None  # of the image features is withheld in training
    batch_size: Count  # images at once, for features and for scoring

    def __post_init__(self) -> None:
        absent = [name for name in ("decoder", "drop", "train") if getattr(self, name) is None]
        if self.init_from is None and absent:
            raise ValueError(
                f"train_captioner: {', '.join(absent)} must be given to train one, or init_from to name one"
            )
        if self.init_from is not None and len(absent) < 3:
            raise ValueError(
                "train_captioner: an init_from model is used as it is; set decoder, drop and train to null"
            )
