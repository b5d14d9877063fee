"""How the denoiser is built, trained and sampled: params of stages, so this module is light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Lt, MinLen

from canvas.denoiser.dit.spec import PATCH, DitSpec
from canvas.denoiser.feature_alignment.spec import FeatureAlignment
from canvas.denoiser.unet.spec import UNetSpec
from canvas.ranges import Count, GuidanceScale, NonNegative, PartialShare, Positive, Share
from canvas.train.spec import MAX_RELATIVE_LENGTH, Precision, Train, TrainableParams, Training, TrainSpec

if TYPE_CHECKING:
    from canvas.pins.frames import FrameSpec  # it imports OpenCV, which a machine that only trains may lack

RelativeLength = Annotated[float, Gt(0), Lt(MAX_RELATIVE_LENGTH)]
"""Length of an average of the weights: its relative standard deviation, sigma_rel of EDM2 (Karras et al. 2024)."""

Beta = Annotated[float, Gt(0), Lt(1)]
"""Share of the variance that one timestep replaces by noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserSpec:
    """The denoiser's family and size. The sections of other kinds must be null: they would be ignored."""

    kind: Literal["unet", "dit"]  # SDXL's UNet, or a diffusion transformer of Flux's class
    init_from: str | None  # directory or hub id (OWNER/NAME@REVISION) of such a model of diffusers, or of a pipeline
    unet: UNetSpec | None  # null unless kind is unet
    dit: DitSpec | None  # null unless kind is dit

    def __post_init__(self) -> None:
        for name in ("unet", "dit"):
            if (getattr(self, name) is None) == (name == self.kind):
                state, fix = ("null", "give its sizes") if name == self.kind else ("given", "use null")
                raise ValueError(f"denoiser.{name} is {state}, but denoiser.kind is {self.kind}: {fix}")
        if self.dit is not None and self.dit.zero_modulation and self.init_from is not None:
            raise ValueError(
                f"denoiser.dit.zero_modulation is true, but denoiser.init_from {self.init_from!r} brings weights: "
                "use false"
            )

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise ValueError unless the noising process is one that the family can learn."""
        prediction = params["diffusion"].prediction
        if self.kind == "dit" and prediction != "flow":
            raise ValueError(f"kind is dit and diffusion.prediction {prediction}: use flow, as Flux's pipelines sample")

    def check_encoding(self, holes: Literal["cells", "pixels"], frames: FrameSpec, cell: int) -> None:
        """Raise ValueError unless the family reads such holes and frames; `cell`: pixels of a latent cell's side."""
        needed = "pixels" if self.kind == "dit" else "cells"
        if holes != needed:
            raise ValueError(f"encode.holes is {holes}, but denoiser.kind {self.kind} reads {needed}: make them agree")
        side = cell * PATCH
        uneven = [list(size) for size in frames.buckets if size[0] % side or size[1] % side]
        if self.kind == "dit" and uneven:
            raise ValueError(
                f"denoiser.kind dit reads {PATCH} x {PATCH} latent cells of {cell} pixels, but frames.buckets {uneven} "
                f"are no multiples of {side}: change them, or vae.patch"
            )

    @property
    def sizes(self) -> UNetSpec | DitSpec:
        """The section of the kind."""
        sizes = self.unet if self.kind == "unet" else self.dit
        assert sizes is not None
        return sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionSpec:
    """The noising process. Values of the other family of processes must be null: they would be ignored."""

    prediction: Literal["eps", "v", "flow"]  # flow needs time_mean, time_std and shift; eps and v the betas
    train_timesteps: Count  # the highest timestep: noise alone
    # flow (Esser et al. 2024): sigma = sigmoid(time_mean + time_std * normal), then shifted
    time_mean: float | None  # of the normal distribution that training's timesteps come from, before the shift
    time_std: Positive | None  # its standard deviation
    shift: Positive | None  # > 1: more noise; for bigger latents (Esser et al. 2024, eq. 23)
    shift_side: Count | None  # latent cells of a side that shift is for, larger frames get more; null: for any
    # eps, v
    beta_start: Beta | None  # of the noise schedule, at the first timestep
    beta_end: Beta | None  # at the last timestep
    zero_terminal_snr: bool | None  # whether the last timestep is pure noise (Lin et al. 2023, Algorithm 1)
    min_snr_gamma: Positive | None  # limit of the loss's weights (Hang et al. 2023); null: unweighted

    def __post_init__(self) -> None:
        of_flow = ("time_mean", "time_std", "shift")
        of_betas = ("beta_start", "beta_end", "zero_terminal_snr")
        is_flow = self.prediction == "flow"
        for name in of_flow if is_flow else of_betas:
            if getattr(self, name) is None:
                raise ValueError(f"diffusion.{name} is null: prediction {self.prediction!r} needs it")
        for name in (*of_betas, "min_snr_gamma") if is_flow else (*of_flow, "shift_side"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"diffusion.{name} is {value}, but prediction {self.prediction!r} ignores it: use null"
                )
        if self.prediction == "eps" and self.zero_terminal_snr:
            raise ValueError(
                "diffusion.prediction eps cannot learn from pure noise: use v or flow, or zero_terminal_snr: false"
            )

    def resolve_shift(self, cells: int) -> DiffusionSpec:
        """Return the process for latents of so many cells. The shift grows with the root of their number, so that as
        much noise hides as much of an image (Esser et al. 2024, eq. 23)."""
        if self.shift is None or self.shift_side is None:
            return self
        return replace(self, shift=self.shift * cells**0.5 / self.shift_side, shift_side=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class PassSpec:
    """How many images go through the denoiser at once, and in which number format."""

    batch_size: Count  # images in a pass
    precision: Precision  # of the denoiser; latents stay fp32


@dataclass(frozen=True, kw_only=True, slots=True)
class ReuseSpec:
    """What steps of the sampler take over from earlier ones: quicker, and other images. Counts of 1: nothing."""

    guidance: Count  # guided steps from one comparison with no prompt to the next; the others take its difference
    blocks: Count  # steps from one pass through a transformer's blocks to the next; of a UNet 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSpec(PassSpec):
    """Sampling of many images."""

    steps: Count  # of the sampler
    guidance_scale: GuidanceScale  # 1: no guidance
    guidance_stop: Share  # share of the steps that is guided, from the first
    autoguidance_scale: NonNegative  # in these steps, away from what the denoiser says without its LoRAs; 0: not
    reuse: ReuseSpec | None  # null: each step computes all


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommendedSampling:
    """Settings that a generator carries, for callers that give none."""

    steps: Count  # of the sampler
    guidance_scale: GuidanceScale  # beside a prompt; 1: no guidance
    guidance_stop: Share  # share of the steps that is guided, from the first
    autoguidance_scale: NonNegative  # beside a prompt, away from what the denoiser says without its LoRAs; 0: not
    style_guidance_scale: GuidanceScale  # of a style without a prompt
    style_guidance_stop: Share  # of the steps of such a request that is guided
    style_strength: NonNegative  # 1: as trained
    reuse: ReuseSpec | None  # null: each step computes all
    scheduler: str | None  # euler, heun or dpm++ of a flow; ddim, euler or dpm++ of eps and v; null: the denoiser's own

    @classmethod
    def from_config(cls, stored: Mapping[str, Any]) -> RecommendedSampling:
        """Return the settings that a model carries; one from before there was reuse or autoguidance has none."""
        reuse = stored.get("reuse")
        settings = {"autoguidance_scale": 0.0, **stored, "reuse": None if reuse is None else ReuseSpec(**reuse)}
        return cls(**settings)

    def get_guidance(self, *, has_prompt: bool) -> tuple[float, float]:
        """Return guidance scale and stop of a request with a prompt, or with a style alone."""
        if has_prompt:
            return self.guidance_scale, self.guidance_stop
        return self.style_guidance_scale, self.style_guidance_stop

    def build_spec(self, passes: PassSpec) -> SamplingSpec:
        """Return the sampling of many images with prompts."""
        guidance, stop = self.get_guidance(has_prompt=True)
        return SamplingSpec(
            **asdict(passes),
            steps=self.steps,
            guidance_scale=guidance,
            guidance_stop=stop,
            autoguidance_scale=self.autoguidance_scale,
            reuse=self.reuse,
        )


def count_comparisons(sampling: SamplingSpec | RecommendedSampling) -> int:
    """Count the passes by which guided steps compare, with no prompt or without LoRAs, of a scheduler that makes no
    more steps."""
    guided = round(sampling.guidance_stop * sampling.steps)
    comparing = guided if sampling.reuse is None else -(-guided // sampling.reuse.guidance)
    return comparing * ((sampling.guidance_scale != 1) + (sampling.autoguidance_scale != 0))


DEFAULT_SAMPLING = RecommendedSampling(
    steps=30,
    guidance_scale=5.0,
    guidance_stop=1.0,
    autoguidance_scale=0.0,
    style_guidance_scale=5.0,
    style_guidance_stop=1.0,
    style_strength=1.0,
    reuse=None,
    scheduler=None,
)
"""Settings of models that were saved before they carried their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backgrounds:
    """What held-out products are shown in front of."""

    prompts: Annotated[tuple[str, ...], MinLen(1)]  # each with every product


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """A LoRA on every linear and convolution layer of the denoiser."""

    rank: Count  # of the matrices
    alpha: Count  # the LoRA's share of a layer is alpha / rank
    folded: bool  # trained as one weight with the layer's own (canvas.denoiser.lora.fold_lora_weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDropout:
    """Shares of samples without their image, beyond those without a caption alone: guidance's other sides."""

    image: Share  # share whose image is dropped, the caption kept
    both: Share  # share whose image and caption are dropped

    def __post_init__(self) -> None:
        if min(self.image, self.both) < 0 or self.image + self.both >= 1:
            raise ValueError(f"image_dropout has {self}: shares must be 0 or more and below 1 together")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutSpec:
    """The held-out loss, by which the average of the weights is chosen."""

    pins: Count  # spread evenly over the held-out ones
    repeats: Count  # timesteps and noises drawn for each
    batch_size: Count  # pins in a pass
    ema: Annotated[tuple[RelativeLength, ...], MinLen(1)]  # lengths that training tracks, of the run; two do
    averages: Annotated[tuple[RelativeLength, ...], MinLen(1)]  # lengths to choose from, made of those


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetSpec:
    """The sheet of samples of held-out pins beside the originals."""

    pins: Count  # held-out ones, spread evenly
    steps: Count  # of the sampler
    guidance_scale: GuidanceScale  # 1: no guidance


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserTraining(TrainableParams):
    """What the stages that train a denoiser have in common."""

    train: Train | None  # null: the stage is skipped; denoisers pass through, no LoRA or adapter is made
    captions: Count  # of a pin's, in the order of encode.sources, of which one is drawn a step; 1: the first source's
    caption_dropout: PartialShare  # of the samples have no caption: guidance's unconditional side
    choose_average: bool  # of the weights, by the held-out loss; false: the last ones stay, and none is tracked

    def resolve(self, training: Training, held_out: HeldOutSpec) -> TrainSpec:
        """Return the spec of the training, with the averages that it tracks."""
        assert self.train is not None, "a stage without training has no spec of one"
        return training.resolve(self.train, held_out.ema if self.choose_average else ())


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeTraining(DenoiserTraining):
    """Training of all weights."""

    feature_alignment: FeatureAlignment | None  # with encode.features; null: none

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise ValueError if the training cannot run as the section `training` says."""
        super(WholeTraining, self).check_with(params)
        if self.train is None or self.feature_alignment is None:
            return
        if params["training"].resolve(self.train).compile:
            raise ValueError(
                "feature_alignment reads a block's output, which compile hides: set compile to false in train.override"
            )

    def check_features(self, stage: str, features: object | None) -> None:
        """Raise ValueError unless shards with `features` hold what the training of `stage` reads."""
        if self.train is not None and self.feature_alignment is not None and features is None:
            raise ValueError(
                f"{stage}.feature_alignment is given, but encode.features is null: name a network, or use null for both"
            )
