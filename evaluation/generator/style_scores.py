"""Metrics of style images: is the style followed, does the prompt still hold, does the style's product leak?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canvas.features.vectors import normalize_vectors
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import crossed_bootstrap_mean

OptionalValues = Sequence[float | None]
"""One a score; None: it does not count."""

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


def compute_style_metrics(scores: Sequence[StyleScore]) -> dict[str, float]:
    """Return means with 95 % intervals of images of one strength that all had a prompt, or all had none.

    `scene_follows`: the judge recognizes the style's scene, among images whose product came in another. `style_scene`:
    likewise, of all. `style_agreement_gain`: agreement over that with images of other scenes.
    `picture_agreement_gain`: over that with other images of the same scene, 0 where its scene is all that is followed.
    `leakage_control`: the share detected of inserted products, small and hard-edged as the judge was fitted to: an
    upper bound for generated ones.
    """
    columns: dict[str, OptionalValues] = {
        "style_scene": [_has_style_scene(score) for score in scores],
        "scene_follows": [_has_followed_scene(score) for score in scores],
        "style_agreement": [score.style_agreement for score in scores],
        "style_agreement_gain": [_subtract(score.style_agreement, score.other_agreement) for score in scores],
        "picture_agreement_gain": [_subtract(score.style_agreement, score.scene_agreement) for score in scores],
        "text_agreement": [score.text_agreement for score in scores],
        "leakage": [score.leaked for score in scores],
        "leakage_control": [score.leak_found for score in scores],
    }
    metrics: dict[str, float] = {"pictures": len(scores)}
    for name, values in columns.items():
        metrics |= _compute_interval(name, scores, values)
    return metrics | {"core_max_abs_diff": max(score.core_difference for score in scores)}


def compute_prompt_changes(scores: Sequence[StyleScore], strength: float) -> dict[str, float]:
    """Return what a style of this strength changes of prompted images: mean differences of pairs of item and seed."""
    prompted = [score for score in scores if score.prompted]
    without = {(score.item, score.seed): score for score in prompted if score.strength == 0}
    styled = [score for score in prompted if score.strength == strength and (score.item, score.seed) in without]
    pairs = [(score, without[score.item, score.seed]) for score in styled]
    scene = [_subtract(_has_style_scene(after), _has_style_scene(before)) for after, before in pairs]
    text = [_subtract(after.text_agreement, before.text_agreement) for after, before in pairs]
    return _compute_interval("prompt_scene_change", styled, scene) | _compute_interval(
        "text_agreement_change", styled, text
    )


def compute_follows_by_style_split(scores: Sequence[StyleScore]) -> dict[str, dict[str, float]]:
    """Return `scene_follows` by the split of the style image, of images as for `compute_style_metrics`."""
    metrics = {}
    for split in sorted({score.style_split for score in scores}):
        own = [score for score in scores if score.style_split == split and _has_followed_scene(score) is not None]
        if own:
            metrics[split] = {"pictures": len(own)} | _compute_interval(
                "scene_follows", own, [_has_followed_scene(score) for score in own]
            )
    return metrics


def _has_style_scene(score: StyleScore) -> bool | None:
    return None if score.style_scene is None else score.seen == score.style_scene


def _has_followed_scene(score: StyleScore) -> bool | None:
    return None if score.style_scene == score.product_scene else _has_style_scene(score)


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _compute_interval(name: str, scores: Sequence[StyleScore], values: OptionalValues) -> dict[str, float]:
    """Return the mean of the values that count with its interval; products and style images are resampled together."""
    pairs = [(score, float(value)) for score, value in zip(scores, values, strict=True) if value is not None]
    if not pairs:
        return {}
    products, styles = [score.product for score, _ in pairs], [score.item[1] for score, _ in pairs]
    return crossed_bootstrap_mean([value for _, value in pairs], products, styles).to_metrics(name)


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
    return _compute_interval("diversity", firsts, distances)


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
        "scene_follows": ("unprompted", "scene_follows"),
        "scene_follows_low": ("unprompted", "scene_follows_low"),
        "scene_follows_high": ("unprompted", "scene_follows_high"),
        "style_agreement": ("unprompted", "style_agreement"),
        "leakage": ("unprompted", "leakage"),
        "diversity": ("unprompted", "diversity"),
        "prompt_scene": ("prompted", "style_scene"),
        "text_agreement": ("prompted", "text_agreement"),
    }
    lines = ["strength," + ",".join(columns)]
    for strength, both in metrics.items():
        values = [both.get(how, {}).get(name, float("nan")) for how, name in columns.values()]
        lines.append(",".join([f"{strength:g}", *("" if np.isnan(value) else f"{value:.6g}" for value in values)]))
    return "\n".join(lines) + "\n"
