"""Params of the stages that sample and score generated images: light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from canvas.denoiser.spec import SamplingSpec
from canvas.pins.captions import NameSource
from canvas.ranges import Count, Natural, NetworkSide, Share
from canvas.shards.spec import EngagementRule
from canvas.styles.table import MAX_STRENGTH
from evaluation.judges.spec import ReferencesSpec

FeatureName = Literal["trunk", "first", "second"]
"""What whole sets are compared by: the judges' network, or an image tower of the text-image encoders."""

Splits = Annotated[tuple[Literal["train", "unseen_product", "unseen_view", "unseen_both"], ...], MinLen(1)]
Strengths = Annotated[tuple[Annotated[float, Gt(0), Le(MAX_STRENGTH)], ...], MinLen(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductNameSpec:
    """How prompts of images that are judged name the product."""

    source: NameSource  # title: the catalogue's, where there is one; caption: the generated one's, which may err


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChoice:
    """Features of each measure of whole sets."""

    fid: FeatureName  # of the Fréchet distance
    kid: FeatureName  # of the kernel distance
    cmmd: FeatureName  # of the CLIP distance
    vendi: FeatureName  # of the diversity of a set

    @property
    def names(self) -> set[FeatureName]:
        return {self.fid, self.kid, self.cmmd, self.vendi}


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSpec:
    """Candidates that are sampled, and the sheet of them."""

    splits: Splits  # of the products that images are generated of
    products: Count  # pins to generate images of
    seeds: Count  # images of each product and prompt
    sheet_items: Count  # products and prompts on the sheet


@dataclass(frozen=True, kw_only=True, slots=True)
class InstrumentSpec:
    """How the instruments are checked on held-out pins."""

    train_pins: Count  # pins of the train split that the judge of defects learns from
    comparisons_each: Count  # of a real image with its corrupted self, of each kind: the reward model's accuracy
    seed: Natural  # of the corruptions


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSpec:
    """How candidates are scored and compared."""

    references: ReferencesSpec
    instruments: InstrumentSpec
    engaged: EngagementRule  # of the promoted pins whose likeness is measured
    features: FeatureChoice  # of the distances of whole sets
    agreement: Literal["first", "second"]  # text-image encoder that compares image and prompt
    real_pins: Count  # held-out ones that generated images are compared with
    distance_side: NetworkSide  # pixels in which images of one item are compared, a multiple of 32
    seam_reach: Count  # pixels of the model's frame on each side of the product's edge
    mask_sizes: tuple[Share, Share]  # shares of the image from which a product is medium, large
    slices: tuple[Literal["category", "scene", "mask_size", "aspect"], ...]  # columns of the evaluation
    min_items: Count  # of a slice that is compared with the champion's
    worst: Count  # images on the sheet of the lowest rewards
    batch_size: Count  # images at once

    def __post_init__(self) -> None:
        if self.distance_side < 32 or self.distance_side % 32:
            raise ValueError(f"evaluate.distance_side is {self.distance_side}: the judge needs a multiple of 32")
        if not 0 < self.mask_sizes[0] < self.mask_sizes[1] < 1:
            raise ValueError(f"evaluate.mask_sizes are {self.mask_sizes}: give two shares of the image that rise")


@dataclass(frozen=True, kw_only=True, slots=True)
class SameSeedSpec:
    """How many backgrounds are generated to measure diversity at one seed."""

    products: Annotated[int, Ge(2)]  # at most; as many real ones of each scene
    prompts: Count  # at most, spread over all


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundEvaluationSpec:
    """Whose backgrounds `evaluate_backdrop` scores, and how."""

    splits: Splits  # of the products that images are generated of
    products: Count  # pins to generate images of
    seed: Natural  # of the first image; the others count on
    real_pins: Count  # held-out ones that generated images are compared with
    seam_reach: Count  # pixels of the model's frame on each side of the product's edge
    grid_products: Count  # rows of the grid
    same_seed: SameSeedSpec  # backgrounds of different products that are compared at one seed


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleEvaluationSpec:
    """Products, style images and strengths that `evaluate_style` tries."""

    splits: Splits  # of the products that images are generated of
    style_splits: Splits  # of the style images
    products: Count  # pins to generate images of
    styles: Count  # style images of each product, one a scene
    strengths: Strengths  # beside 0, the model without a style; the first is the headline's
    layers: Literal["all", "style"]  # where the style is injected
    typical: Share  # how far style images are drawn to the nearest mined cluster, 0 to 1
    seeds: Count  # of each product, style and strength
    headline_seeds: Annotated[int, Ge(2)]  # of the first strength and of none, without a prompt: diversity takes two
    sampling: SamplingSpec  # how images are sampled
    learnt_pins: Count  # real pins of the train split that the judge of products learns from
    real_pins: Count  # held-out ones that it is checked on, and generated images compared with
    grid_products: Count  # of the grid; style images are the same for so many
    seed: Natural  # of the first image of a trial, of the judge's examples and of inserted products

    def __post_init__(self) -> None:
        if self.headline_seeds < self.seeds:
            raise ValueError(
                f"evaluate_style.headline_seeds is {self.headline_seeds}: it must be {self.seeds}, as seeds is, or more"
            )
        if len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"evaluate_style.strengths are {list(self.strengths)}: give each one once")
