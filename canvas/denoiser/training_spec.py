"""How a denoiser is trained and scored: params of stages, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.train.spec import MAX_RELATIVE_LENGTH, Train, TrainableParams, Training, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """A LoRA on every linear and convolution layer of the denoiser."""

    rank: int
    alpha: int  # the LoRA's share of a layer is alpha / rank
    folded: bool  # trained as one weight with the layer's own (canvas.denoiser.lora.folding)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise ValueError(f"lora has rank {self.rank} and alpha {self.alpha}: both must be 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDropout:
    """Shares of samples without their picture, beyond those without a caption alone: guidance's other sides."""

    image: float  # the picture is dropped, the caption kept
    both: float  # both are dropped

    def __post_init__(self) -> None:
        if min(self.image, self.both) < 0 or self.image + self.both >= 1:
            raise ValueError(f"image_dropout has {self}: shares must be 0 or more and below 1 together")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutSpec:
    """The held-out loss, by which the average of the weights is chosen."""

    pins: int  # spread evenly over the held-out ones
    repeats: int  # times and noises drawn for each
    batch_size: int
    ema: tuple[float, ...]  # relative lengths (sigma_rel of EDM2) that training tracks; two do
    averages: tuple[float, ...]  # relative lengths to choose from, made of those

    def __post_init__(self) -> None:
        for name in ("pins", "repeats", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        for name in ("ema", "averages"):
            lengths = getattr(self, name)
            if not lengths or not all(0 < length < MAX_RELATIVE_LENGTH for length in lengths):
                raise ValueError(f"{name} is {list(lengths)}: give lengths between 0 and 0.288, as 0.05, 0.1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetSpec:
    """The sheet of samples of held-out pins beside the originals."""

    pins: int
    steps: int
    guidance_scale: float

    def __post_init__(self) -> None:
        if self.pins < 1 or self.steps < 1 or self.guidance_scale < 1:
            raise ValueError(f"sample_sheet needs pins, steps and guidance_scale of 1 or more, not {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserTraining(TrainableParams):
    """What the stages that train a denoiser have in common."""

    train: Train
    captions: int  # of a pin's, in the order of encode.sources, of which one is drawn a step; 1: the preferred source's
    caption_dropout: float  # share of samples without a caption: guidance's unconditional side
    choose_average: bool  # of the weights, by the held-out loss; false: the last ones stay, and none is tracked

    def __post_init__(self) -> None:
        if self.captions < 1:
            raise ValueError(f"captions is {self.captions}: draw from 1 or more of a pin's")

    def resolve(self, training: Training, held_out: HeldOutSpec) -> TrainSpec:
        """Return the spec of the training, with the averages that it tracks."""
        return training.resolve(self.train, held_out.ema if self.choose_average else ())
