"""Sizes and training of the text-image encoders; params of stages, so light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from canvas.pins.frames import CropSpec
from canvas.ranges import Count, PartialShare, Positive
from canvas.train.spec import TrainableParams


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """Sizes of one text-image encoder, in open_clip's terms."""

    embed_dim: Count  # of the embeddings that images and texts share
    quick_gelu: bool  # x * sigmoid(1.702 x) for GELU, as in OpenAI's towers
    image_size: Count  # side in pixels of the square images, a multiple of patch_size
    patch_size: Count  # side in pixels of the patches
    vision_width: Count  # of the image tower's hidden states, a multiple of vision_head_width
    vision_layers: Count  # blocks of the image tower
    vision_head_width: Count  # of an attention head of the image tower
    vision_mlp_ratio: Positive  # width of the image tower's hidden layers, in parts of vision_width
    vision_patch_dropout: PartialShare  # of the patches is hidden in training
    text_width: Count  # of the text tower's hidden states, a multiple of text_heads
    text_layers: Annotated[int, Ge(2)]  # blocks of the text tower; the denoiser reads the last but one
    text_heads: Count  # attention heads of a block of the text tower
    context_length: Annotated[int, Ge(3)]  # tokens of a text, at most, start and end among them
    pad_with_end: bool  # OpenAI's towers were trained on end-of-text as padding, OpenCLIP's on zeros
    init_from: str | None  # "NAME:TAG" of open_clip's list; a directory or hub id (OWNER/NAME@REVISION) of an open_clip
    # model, or of a text encoder of transformers, as text_encoder in a diffusers pipeline, without its image half

    def __post_init__(self) -> None:
        if self.text_width % self.text_heads:
            raise ValueError(f"text_width {self.text_width} cannot be split into {self.text_heads} text_heads")
        if self.vision_width % self.vision_head_width:
            raise ValueError(f"vision_width {self.vision_width} is no multiple of head width {self.vision_head_width}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class T5Spec:
    """Sizes of T5's encoder, a public one that is read as it is."""

    width: Count  # of the hidden states
    layers: Count  # blocks
    heads: Count  # of attention
    head_width: Count  # numbers of a head
    hidden: Count  # width of the hidden layers
    context_length: Annotated[int, Ge(2)]  # tokens of a text, at most, its end among them
    precision: Literal["fp32", "bf16"]  # of its weights
    init_from: str  # directory or hub id (OWNER/NAME@REVISION) of a T5EncoderModel and tokenizer, or of Flux's pipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSpec:
    """The two text-image encoders whose text towers the denoiser reads, as SDXL's CLIP-ViT/L and OpenCLIP-ViT/bigG; or,
    as in Flux, the first's pooled text and T5's states."""

    first: ClipSpec  # its hidden states alone are read; beside a T5 its pooled text alone, before the projection
    second: ClipSpec  # its pooled text is read, too; with as long a context; beside a T5 the denoiser reads none of it
    t5: T5Spec | None  # its states are read in place of the others'; null: none

    def __post_init__(self) -> None:
        if self.first.context_length != self.second.context_length:
            raise ValueError(
                f"context_length is {self.first.context_length} and {self.second.context_length}: the towers' states "
                "stand side by side, make them equal"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClipParams(TrainableParams):
    """What the encoders are trained on, and scored with."""

    sources: tuple[str, ...]  # of the captions to learn from
    scored_source: str  # of the captions that retrieval is scored with
    crops: CropSpec  # random crops of the images
    score_batch: Count  # images at once, when scored

    refused: ClassVar[Mapping[str, str]] = {
        "accumulate": "pairs are told apart within one pass, train on more processes and set it to 1",
        "parallel": "the temperature is one number, which cannot be sharded, set it to ddp or none",
    }
