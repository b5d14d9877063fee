"""Scores of images that follow a style image: scene, agreement with style and prompt, leaked products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image

from canvas.clip.model import load_clip
from canvas.device import default_device
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins.images import Pixels
from canvas.pins.products import load_product_pins
from canvas.pins.scene_views import Views, stack_views
from canvas.pins.tables import HELD_OUT_SPLITS
from canvas.styles.pins import LabelledProducts, read_labelled_products
from evaluation.generator.background_scores import measure_core_difference
from evaluation.generator.candidates import embed_images, embed_prompts
from evaluation.generator.leakage import ProductJudge, compute_judge_metrics, detect_leaks, insert_products
from evaluation.generator.spec import StyleEvaluationSpec
from evaluation.generator.style_scores import StyleScore, average_agreements, compute_agreements, standardize_features
from evaluation.generator.style_trials import StylePlan, format_prompt, select_comparisons
from evaluation.judges.features import extract_scene_features, extract_trunk_features
from evaluation.judges.judges import Judges
from evaluation.measures.distances import Features, text_agreement


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
        real = load_product_pins(pins, kept, masks, captions, splits=held_out, count=spec.real_pins)
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
                    leak_found=detected.get(index),
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
        own = [plan.subjects[trial.subject].pin.category for trial in plan.trials]
        leaks = detect_leaks(self.product_judge.recognize_products(views, hidden), categories, own)
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
            index: format_prompt(plan.subjects[trial.subject], plan.styles[trial.style])
            for index, trial in enumerate(plan.trials)
            if trial.prompted
        }
        if not prompts:
            return {}
        embeddings = embed_images(self.clip, views[list(prompts)], 64)
        values = text_agreement(embeddings, embed_prompts(pipeline.text_encoder, list(prompts.values())))
        return dict(zip(prompts, map(float, values), strict=True))
