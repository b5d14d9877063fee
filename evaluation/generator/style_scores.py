"""Metrics of style images: is the style followed, does the prompt still hold, does the style's product leak?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from canvas.features.vectors import normalize_vectors
from evaluation.generator.background_scores import OptionalValues, compute_crossed_means
from evaluation.measures.distances import Features

MetricsByStrength = Mapping[float, Mapping[str, Mapping[str, float]]]
"""Strength -> "prompted" and "unprompted" -> metrics."""

HEADLINE = (
    "scene_follows",
    "style_agreement",
    "style_agreement_gain",
    "picture_agreement_gain",
    "leakage",
    "leakage_control",
    "diversity",
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
    leak_found: bool | None  # one of its kind is recognized where it was inserted; None: it was not

    @property
    def has_style_scene(self) -> bool | None:
        return None if self.style_scene is None else self.seen == self.style_scene

    @property
    def follows_scene(self) -> bool | None:
        """Whether the judge recognizes the style's scene; None where the product came in that scene, too."""
        return None if self.style_scene == self.product_scene else self.has_style_scene


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
        "leakage_control": [score.leak_found for score in scores],
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
        own = [score for score in decided if score.style_split == split]
        means = _compute_means(own, {"scene_follows": [score.follows_scene for score in own]})
        metrics[split] = {"pictures": len(own), **means}
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
                own = [scores[row] for row in rows]
                both = compute_style_metrics(own) | compute_diversity(own, features[rows])
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
