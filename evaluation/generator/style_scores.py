"""Scores of images that follow a style image, and their metrics.

Is the style followed, does the prompt still hold, does the style's product leak?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
from PIL import Image

from canvas.clip.model import load_clip
from canvas.device import default_device
from canvas.features.vectors import normalize_vectors
from canvas.inference.batch import fit_prompt
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins.fallbacks import Notes
from canvas.pins.images import Pixels
from canvas.pins.products import load_product_pins
from canvas.pins.scene_views import Views, stack_views
from canvas.pins.tables import HELD_OUT_SPLITS
from canvas.styles.pins import LabelledProducts, read_labelled_products
from evaluation.generator.background_scores import OptionalValues, compute_crossed_means, measure_core_difference
from evaluation.generator.candidates import embed_images, embed_prompts
from evaluation.generator.leakage import ProductJudge, compute_judge_metrics, detect_leaks, insert_products
from evaluation.generator.spec import StyleEvaluationSpec
from evaluation.generator.style_trials import StylePlan, select_comparisons
from evaluation.judges.features import extract_scene_features, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.distances import Features, text_agreement

MetricsByStrength = Mapping[float, Mapping[str, Mapping[str, float]]]
"""Strength -> "prompted" and "unprompted" -> metrics."""

HEADLINE = (
    *("scene_follows", "style_agreement", "style_agreement_gain", "picture_agreement_gain"),
    *("leakage", "leakage_control", "diversity"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScore:
    """One generated image of a product, conditioned on a style image, a prompt, or both."""

    strength: float  # of the style; 0: as without one
    prompted: bool  # with words that name the style image's background
    seed: int
    item: tuple[int, int]  # product pin and style image: images of an item differ in their seed
    product: str  # pins of one product are not independent
    product_scene: str | None  # that the product came in; None: unknown
    style_scene: str | None
    style_split: str  # of the style image's pin
    seen: str | None  # scene that the judge recognizes
    style_agreement: float  # cosine with the style image, by features that no loss of the generator uses
    scene_agreement: float | None  # mean cosine with other images of the style's scene; None: there are none
    other_agreement: float | None  # likewise of other scenes: what following no style gives
    text_agreement: float | None  # cosine with the prompt; None: there was none
    core_difference: int  # largest change of a byte on the product's core
    leaked: bool | None  # the style image's product is recognized; None: cannot be decided
    leak_detected: bool | None  # one of its kind is recognized where it was inserted; None: it was not

    @property
    def has_style_scene(self) -> bool | None:
        return None if self.style_scene is None else self.seen == self.style_scene

    @property
    def follows_scene(self) -> bool | None:
        """Whether the judge recognizes the style's scene; None where the product came in that scene, too."""
        return None if self.style_scene == self.product_scene else self.has_style_scene


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScorer:
    """The judges of styled images; none of their networks steers the generator's style."""

    judges: Judges
    product_judge: ProductJudge | None  # None: truth knows no products
    products: LabelledProducts  # held out: inserted into images to measure how many leaks are detected
    clip: open_clip.CLIP  # the first text-image encoder
    real: Features  # of real images, by which features are standardized
    side: int  # pixels of the squares that judges see
    seed: int  # of which products are inserted, and where

    @classmethod
    def load(
        cls,
        spec: StyleEvaluationSpec,
        side: int,
        notes: Notes,
        *,
        judges: Path,
        clip: Path,
        pins: Path,
        kept: Path,
        truth: Path,
        masks: Path,
        captions: Path,
    ) -> StyleScorer:
        """Load the networks onto the default device, and fit the judge of products to the tables' train split."""
        tables, held_out = (pins, kept, truth), HELD_OUT_SPLITS
        train = read_labelled_products(*tables, splits=("train",), side=side, count=spec.learnt_pins)
        real = load_product_pins(pins, kept, masks, captions, splits=held_out, count=spec.real_pins, notes=notes)
        return cls(
            judges=Judges.load(judges),
            product_judge=ProductJudge.fit(train, spec.seed),
            products=read_labelled_products(*tables, splits=held_out, side=side, count=spec.real_pins),
            clip=load_clip(clip / "first").eval().to(default_device()),
            real=extract_trunk_features(stack_views([pin.image for pin in real], side)),
            side=side,
            seed=spec.seed,
        )

    def compute_judge_accuracies(self) -> dict[str, float]:
        """Return the accuracies of the judges of scenes and products on held-out pins."""
        accuracies = dict(self.judges.accuracy)
        if self.product_judge is not None and len(self.products.views):
            accuracies |= compute_judge_metrics(self.product_judge, self.products, self.seed)
        return accuracies

    def score_trials(
        self, pipeline: CanvasPipeline, plan: StylePlan, images: Sequence[Pixels], split_of: Mapping[str, str]
    ) -> tuple[list[StyleScore], Features]:
        """Return the score of each trial's image, and the images' features; `split_of` pins."""
        views = stack_views([Image.fromarray(image) for image in images], self.side)
        features = standardize_features(extract_trunk_features(views), self.real)
        style_views = stack_views([style.image for style in plan.styles], self.side)
        cosines = compute_agreements(features, standardize_features(extract_trunk_features(style_views), self.real))
        scenes = [soft for soft, _ in self.judges.recognize_scenes(extract_scene_features(views))]
        products = [build_masked_product(subject.pin.image, subject.pin.mask) for subject in plan.subjects]
        leaks, detected = self._detect_leaks(plan, views)
        texts = self._compute_text_agreement(pipeline, plan, views)
        scores = []
        for index, (trial, image) in enumerate(zip(plan.trials, images, strict=True)):
            subject, style = plan.subjects[trial.subject], plan.styles[trial.style]
            alike, others = select_comparisons(subject, plan.styles, trial.style)
            scores.append(
                StyleScore(
                    strength=trial.strength,
                    prompted=trial.prompted,
                    seed=trial.seed,
                    item=(trial.subject, trial.style),
                    product=subject.pin.product_id or subject.pin.pin_id,
                    product_scene=subject.scene,
                    style_scene=style.scene,
                    style_split=split_of[style.pin_id],
                    seen=scenes[index],
                    style_agreement=float(cosines[index, trial.style]),
                    scene_agreement=average_agreements(cosines[index], alike),
                    other_agreement=average_agreements(cosines[index], others),
                    text_agreement=texts.get(index),
                    core_difference=measure_core_difference(image, products[trial.subject]),
                    leaked=leaks[index],
                    leak_detected=detected.get(index),
                )
            )
        return scores, features

    def _detect_leaks(self, plan: StylePlan, views: Views) -> tuple[Sequence[bool | None], dict[int, bool]]:
        """Return whether the style's product is recognized in each image; and by index whether an inserted one is."""
        if self.product_judge is None:
            return [None] * len(plan.trials), {}
        masks = [Image.fromarray((subject.pin.mask * 255).astype(np.uint8)) for subject in plan.subjects]
        touched = stack_views(masks, self.side) >= 1  # every pixel that the product touches
        hidden = touched[[trial.subject for trial in plan.trials]]
        categories = [plan.styles[trial.style].category for trial in plan.trials]
        product_categories = [plan.subjects[trial.subject].pin.category for trial in plan.trials]
        leaks = detect_leaks(self.product_judge.recognize_products(views, hidden), categories, product_categories)
        inserted = [
            category if trial.strength and leak is not None else None
            for trial, category, leak in zip(plan.trials, categories, leaks, strict=True)
        ]
        copies, indices = insert_products(views, hidden, inserted, self.products, self.seed)
        labels = self.product_judge.recognize_products(copies, hidden[indices])
        return leaks, {index: label == inserted[index] for index, label in zip(indices, labels, strict=True)}

    def _compute_text_agreement(self, pipeline: CanvasPipeline, plan: StylePlan, views: Views) -> dict[int, float]:
        """Return the agreement of prompted images with their prompt by index; the pipeline has the text tower."""
        prompts = {
            index: fit_prompt(pipeline, plan.subjects[trial.subject].pin.product, plan.styles[trial.style].background)
            for index, trial in enumerate(plan.trials)
            if trial.prompted
        }
        if not prompts:
            return {}
        embeddings = embed_images(self.clip, views[list(prompts)], 64)
        values = text_agreement(embeddings, embed_prompts(pipeline.text_encoder, list(prompts.values())))
        return dict(zip(prompts, map(float, values), strict=True))


def compute_style_metrics(scores: Sequence[StyleScore]) -> dict[str, float]:
    """Return means with 95 % intervals of images of one strength that all had a prompt, or all had none.

    `scene_follows`: the judge recognizes the style's scene, among images whose product came in another. `style_scene`:
    likewise, of all. `style_agreement_gain`: agreement over that with images of other scenes.
    `picture_agreement_gain`: over that with other images of the same scene, 0 where its scene is all that is followed.
    `leakage_control`: the share detected of inserted products, small and hard-edged as the judge was fitted to: an
    upper bound for generated ones.
    """
    columns: dict[str, OptionalValues] = {
        "style_scene": [score.has_style_scene for score in scores],
        "scene_follows": [score.follows_scene for score in scores],
        "style_agreement": [score.style_agreement for score in scores],
        "style_agreement_gain": [_subtract(score.style_agreement, score.other_agreement) for score in scores],
        "picture_agreement_gain": [_subtract(score.style_agreement, score.scene_agreement) for score in scores],
        "text_agreement": [score.text_agreement for score in scores],
        "leakage": [score.leaked for score in scores],
        "leakage_control": [score.leak_detected for score in scores],
    }
    core_difference = max(score.core_difference for score in scores)
    return {"pictures": len(scores), **_compute_means(scores, columns), "core_max_abs_diff": core_difference}


def compute_prompt_changes(scores: Sequence[StyleScore], strength: float) -> dict[str, float]:
    """Return what a style of this strength changes of prompted images: mean differences of pairs of item and seed."""
    prompted = [score for score in scores if score.prompted]
    without = {(score.item, score.seed): score for score in prompted if score.strength == 0}
    styled = [score for score in prompted if score.strength == strength and (score.item, score.seed) in without]
    pairs = [(score, without[score.item, score.seed]) for score in styled]
    columns = {
        "prompt_scene_change": [_subtract(after.has_style_scene, before.has_style_scene) for after, before in pairs],
        "text_agreement_change": [_subtract(after.text_agreement, before.text_agreement) for after, before in pairs],
    }
    return _compute_means(styled, columns)


def compute_follows_by_style_split(scores: Sequence[StyleScore]) -> dict[str, dict[str, float]]:
    """Return `scene_follows` by the split of the style image, of images as for `compute_style_metrics`."""
    metrics = {}
    decided = [score for score in scores if score.follows_scene is not None]
    for split in sorted({score.style_split for score in decided}):
        split_scores = [score for score in decided if score.style_split == split]
        means = _compute_means(split_scores, {"scene_follows": [score.follows_scene for score in split_scores]})
        metrics[split] = {"pictures": len(split_scores), **means}
    return metrics


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _compute_means(scores: Sequence[StyleScore], columns: Mapping[str, OptionalValues]) -> dict[str, float]:
    return compute_crossed_means(columns, [(score.product, score.item[1]) for score in scores])


def compute_metrics_by_strength(
    scores: Sequence[StyleScore], features: Features
) -> dict[float, dict[str, dict[str, float]]]:
    """Return metrics by strength and prompt, with the diversity of each item's images by their `features`."""
    metrics: dict[float, dict[str, dict[str, float]]] = {}
    for strength in sorted({score.strength for score in scores}):
        for name, prompted in (("unprompted", False), ("prompted", True)):
            rows = [at for at, s in enumerate(scores) if s.strength == strength and s.prompted == prompted]
            if rows:
                group = [scores[row] for row in rows]
                both = compute_style_metrics(group) | compute_diversity(group, features[rows])
                metrics.setdefault(strength, {})[name] = both
    return metrics


def compute_diversity(scores: Sequence[StyleScore], features: Features) -> dict[str, float]:
    """Return the mean over items of 1 - cosine between two images of one item; nothing if items have one image each."""
    x, firsts, distances = normalize_vectors(features), [], []
    for item in sorted({score.item for score in scores}):
        rows = [row for row, score in enumerate(scores) if score.item == item]
        above = np.triu_indices(len(rows), 1)
        firsts.append(scores[rows[0]])
        distances.append(float(1 - (x[rows] @ x[rows].T)[above].mean()) if len(rows) > 1 else None)
    return _compute_means(firsts, {"diversity": distances})


def compute_agreements(generated: Features, styles: Features) -> Features:
    """Return the cosine of each generated image with each style image, by standardized features."""
    return np.asarray(normalize_vectors(generated) @ normalize_vectors(styles).T)


def average_agreements(row: Features, columns: Sequence[int]) -> float | None:
    """Return the mean of an image's agreements with some styles; None for none."""
    return float(row[list(columns)].mean()) if columns else None


def standardize_features(features: Features, real: Features) -> Features:
    """Return features less the mean, over the deviation of real images: raw ones have cosines near 1 to everything."""
    deviation = real.std(axis=0)
    return np.asarray((features - real.mean(axis=0)) / np.maximum(deviation, 1e-6 + 0.1 * float(deviation.mean())))


def compute_headline(metrics: MetricsByStrength, strength: float) -> dict[str, float]:
    """Return the metrics of a style of `strength` beside those without a style, and the worst core of all."""
    styled, plain = metrics[strength], metrics[0.0]
    headline = {name: styled["unprompted"][name] for name in HEADLINE if name in styled["unprompted"]}
    headline |= {f"{name}_without_style": plain["unprompted"][name] for name in HEADLINE if name in plain["unprompted"]}
    for name, key in (("style_scene", "prompt_scene"), ("text_agreement", "text_agreement")):
        if name in styled["prompted"]:
            headline |= {key: styled["prompted"][name], f"{key}_without_style": plain["prompted"][name]}
    core = max(values["core_max_abs_diff"] for both in metrics.values() for values in both.values())
    return headline | {"core_max_abs_diff": core}


def compute_style_summary(metrics: MetricsByStrength, scores: Sequence[StyleScore], first: float) -> dict[str, Any]:
    """Return the headline and changes at strength `first`, and the metrics of every strength."""
    followers = [score for score in scores if score.strength == first and not score.prompted]
    return {
        **compute_headline(metrics, first),
        **compute_prompt_changes(scores, first),
        "scene_follows_by_style_split": compute_follows_by_style_split(followers),
        "by_strength": {f"strength_{strength:g}": both for strength, both in metrics.items()},
    }


def format_curve_csv(metrics: MetricsByStrength) -> str:
    """Return by strength as CSV what follows the style without a prompt, and what holds of the prompt with one."""
    columns = {
        **{name: ("unprompted", name) for name in ("scene_follows", "scene_follows_low", "scene_follows_high")},
        **{name: ("unprompted", name) for name in ("style_agreement", "leakage", "diversity")},
        "prompt_scene": ("prompted", "style_scene"),
        "text_agreement": ("prompted", "text_agreement"),
    }
    rows = [[both.get(how, {}).get(name, np.nan) for how, name in columns.values()] for both in metrics.values()]
    index = pd.Index([f"{strength:g}" for strength in metrics], name="strength")
    return pd.DataFrame(rows, index, list(columns), dtype=float).to_csv(float_format="%.6g", lineterminator="\n")
