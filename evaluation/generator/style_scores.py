"""What a style picture does to what is painted: is it followed, does the prompt still hold, does its product leak?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from canvas.features.vectors import normalize_vectors
from evaluation.measures.distances import Features
from evaluation.statistics.intervals import crossed_bootstrap_mean

Values = Sequence[float | None]
"""One a score; None: it does not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScore:
    """One painted picture of a product, asked for with a style picture, a prompt, or both."""

    strength: float  # of the style; 0: as without one
    prompted: bool  # with words that name the style picture's background
    seed: int
    item: tuple[int, int]  # painted pin and style picture: pictures of an item differ in their seed
    product: str  # pins of one product are not independent
    product_scene: str | None  # that the product came in; None: unknown
    style_scene: str | None
    style_split: str  # of the style picture's pin
    seen: str | None  # scene, by the judge
    style_agreement: float  # cosine with the style picture, by features that no loss of the generator uses
    scene_agreement: float | None  # mean cosine with other pictures of the style's scene; None: there are none
    other_agreement: float | None  # likewise of other scenes: what following no style gives
    text_agreement: float | None  # cosine with the prompt; None: there was none
    core_difference: int  # largest change of a byte on the product's core
    leaked: bool | None  # the style picture's product is seen; None: not to be told
    leak_found: bool | None  # it is where one of its kind was pasted into the picture; None: it was not


def compute_style_metrics(scores: Sequence[StyleScore]) -> dict[str, float]:
    """Means with their 95 % intervals, of pictures of one strength that all had a prompt, or all had none.

    `scene_follows`: the judge sees the style's scene, among pictures whose product came in another. `style_scene`:
    likewise, of all. `style_agreement_gain`: agreement over that with pictures of other scenes.
    `picture_agreement_gain`: over that with other pictures of the same scene, 0 where its scene is all that is
    followed. `leakage_control`: the share found of products pasted in, small and hard-edged as the judge learnt them:
    an upper bound for painted ones.
    """
    columns: dict[str, Values] = {
        "style_scene": [_has_style_scene(score) for score in scores],
        "scene_follows": [_has_followed_scene(score) for score in scores],
        "style_agreement": [score.style_agreement for score in scores],
        "style_agreement_gain": [_subtract(score.style_agreement, score.other_agreement) for score in scores],
        "picture_agreement_gain": [_subtract(score.style_agreement, score.scene_agreement) for score in scores],
        "text_agreement": [score.text_agreement for score in scores],
        "leakage": [score.leaked for score in scores],
        "leakage_control": [score.leak_found for score in scores],
    }
    found: dict[str, float] = {"pictures": len(scores)}
    for name, values in columns.items():
        found |= _compute_interval(name, scores, values)
    return found | {"core_max_abs_diff": max(score.core_difference for score in scores)}


def compute_prompt_changes(scores: Sequence[StyleScore], strength: float) -> dict[str, float]:
    """What a style of this strength changes of pictures with a prompt, with intervals: differences of pairs that have
    the same item and seed."""
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
    """`scene_follows` by the split of the style picture, of pictures as for `style_figures`."""
    found = {}
    for split in sorted({score.style_split for score in scores}):
        own = [score for score in scores if score.style_split == split and _has_followed_scene(score) is not None]
        if own:
            found[split] = {"pictures": len(own)} | _compute_interval(
                "scene_follows", own, [_has_followed_scene(score) for score in own]
            )
    return found


def _has_style_scene(score: StyleScore) -> bool | None:
    return None if score.style_scene is None else score.seen == score.style_scene


def _has_followed_scene(score: StyleScore) -> bool | None:
    return None if score.style_scene == score.product_scene else _has_style_scene(score)


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _compute_interval(name: str, scores: Sequence[StyleScore], values: Values) -> dict[str, float]:
    """The mean of those that count under `name`, the ends of its 95 % interval under `name`_low and `name`_high;
    nothing if none counts. Products and style pictures are resampled together."""
    known = [(score, float(value)) for score, value in zip(scores, values, strict=True) if value is not None]
    if not known:
        return {}
    of = crossed_bootstrap_mean(
        [value for _, value in known], [score.product for score, _ in known], [score.item[1] for score, _ in known]
    )
    return {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}


def compute_metrics_by_strength(
    scores: Sequence[StyleScore], features: Features
) -> dict[float, dict[str, dict[str, float]]]:
    """Strength -> "prompted" and "unprompted" -> figures, with the diversity of each item's pictures over seeds.
    `features` of the pictures, in their order."""
    found: dict[float, dict[str, dict[str, float]]] = {}
    for strength in sorted({score.strength for score in scores}):
        for name, prompted in (("unprompted", False), ("prompted", True)):
            places = [at for at, s in enumerate(scores) if s.strength == strength and s.prompted == prompted]
            if places:
                chosen = [scores[place] for place in places]
                found.setdefault(strength, {})[name] = compute_style_metrics(chosen) | compute_diversity(
                    chosen, features[places]
                )
    return found


def compute_diversity(scores: Sequence[StyleScore], features: Features) -> dict[str, float]:
    """Mean of 1 - cosine between two pictures of one item, over items, with its interval; nothing where items have
    one picture each."""
    x, firsts, distances = normalize_vectors(features), [], []
    for item in sorted({score.item for score in scores}):
        places = [place for place, score in enumerate(scores) if score.item == item]
        above = np.triu_indices(len(places), 1)
        firsts.append(scores[places[0]])
        distances.append(float(1 - (x[places] @ x[places].T)[above].mean()) if len(places) > 1 else None)
    return _compute_interval("diversity", firsts, distances)


def compute_agreements(painted: Features, styles: Features) -> Features:
    """Cosine of each painted picture with each style picture, [painted, styles]; features must be `standardised`."""
    found: Features = normalize_vectors(painted) @ normalize_vectors(styles).T
    return found


def average_agreements(row: Features, places: Sequence[int]) -> float | None:
    """Of a picture's `agreements`, those at `places`; None for none."""
    return float(row[list(places)].mean()) if places else None


def standardize_features(features: Features, real: Features) -> Features:
    """Features with the mean and deviation of real pictures taken out: raw ones have cosines near 1 to everything."""
    deviation = real.std(axis=0)
    found: Features = (features - real.mean(axis=0)) / np.maximum(deviation, 1e-6 + 0.1 * float(deviation.mean()))
    return found


def format_curve_csv(found: Mapping[float, Mapping[str, Mapping[str, float]]]) -> str:
    """By strength as CSV: what follows the style without a prompt, what holds of the prompt with one."""
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
    for strength, both in found.items():
        values = [both.get(how, {}).get(name, float("nan")) for how, name in columns.values()]
        lines.append(",".join([f"{strength:g}", *("" if np.isnan(value) else f"{value:.6g}" for value in values)]))
    return "\n".join(lines) + "\n"
