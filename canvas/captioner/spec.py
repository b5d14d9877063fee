"""What the demo's captioner is, and how any captioner is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """The demo's captioner: what it sees, and its trained part."""

    image_size: int  # side of the square that pictures are resized to, a multiple of 32
    vocabulary: int  # tokens of the tokenizer, at most
    width: int
    layers: int
    heads: int
    dropout: float

    def __post_init__(self) -> None:
        if self.image_size % 32 or self.image_size < 32:
            raise ValueError(f"image_size is {self.image_size}: the image encoder needs a multiple of 32")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}: it must be a multiple of heads, which is {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptioningSpec:
    """How a captioner is asked."""

    prompt: str | None  # for models that take one; null for the demo's own
    max_tokens: int  # of a caption

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}: a caption needs 1 or more")
