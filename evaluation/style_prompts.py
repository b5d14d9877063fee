"""What a style picture does to what is painted: is it followed, does the prompt still hold, does its product leak?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.distances import Features, unit
from evaluation.masks import interval


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleScore:
    """One painted picture of a product, asked for with a style picture, a prompt, or both."""

    strength: float  # of the style; 0: as without one
    prompted: bool  # with words that name the style picture's background
    item: tuple[int, int]  # product and style: pictures of an item differ in their seed
    product_scene: str | None  # that the product came in; None: unknown
    style_scene: str | None
    seen: str | None  # scene, by the judge
    style_agreement: float  # cosine with the style picture, by features that trained nothing
    other_agreement: float  # mean cosine with the other styles' pictures: what following none of them gives
    text_agreement: float | None  # cosine with the prompt; None: there was none
    core_difference: int  # largest change of a byte on the product's core
    leaked: bool | None  # the style picture's product is seen; None: not to be told


def style_figures(scores: Sequence[StyleScore]) -> dict[str, float]:
    """Means with their 95 % intervals, of pictures of one strength that all had a prompt, or all had none.

    `scene_follows`: the judge sees the style's scene, among pictures whose product came in another. `style_scene`:
    likewise, of all.
    """
    known = [score for score in scores if score.style_scene is not None]
    other = [score for score in known if score.style_scene != score.product_scene]
    found: dict[str, float] = {"pictures": len(scores)}
    columns: dict[str, list[float]] = {
        "style_scene": [float(score.seen == score.style_scene) for score in known],
        "scene_follows": [float(score.seen == score.style_scene) for score in other],
        "style_agreement": [score.style_agreement for score in scores],
        "style_agreement_gain": [score.style_agreement - score.other_agreement for score in scores],
        "text_agreement": [score.text_agreement for score in scores if score.text_agreement is not None],
        "leakage": [float(score.leaked) for score in scores if score.leaked is not None],
    }
    for name, values in columns.items():
        if values:
            found |= interval(name, values)
    return found | {"core_max_abs_diff": max(score.core_difference for score in scores)}


def by_strength(scores: Sequence[StyleScore], features: Features) -> dict[float, dict[str, dict[str, float]]]:
    """Strength -> "prompted" and "unprompted" -> figures, with the diversity of each item's pictures over seeds.
    `features` of the pictures, in their order."""
    found: dict[float, dict[str, dict[str, float]]] = {}
    for strength in sorted({score.strength for score in scores}):
        for name, prompted in (("unprompted", False), ("prompted", True)):
            places = [at for at, s in enumerate(scores) if s.strength == strength and s.prompted == prompted]
            if places:
                chosen = [scores[place] for place in places]
                figures = style_figures(chosen) | diversity([score.item for score in chosen], features[places])
                found.setdefault(strength, {})[name] = figures
    return found


def diversity(items: Sequence[tuple[int, int]], features: Features) -> dict[str, float]:
    """Mean of 1 - cosine between two pictures of one item, over items, with its interval; nothing where items have
    one picture each."""
    x, distances = unit(features), []
    for item in sorted(set(items)):
        own = x[[place for place, other in enumerate(items) if other == item]]
        if len(own) > 1:
            above = np.triu_indices(len(own), 1)
            distances.append(float(1 - (own @ own.T)[above].mean()))
    return dict(interval("diversity", distances)) if distances else {}


def agreements(painted: Features, styles: Features, own: Sequence[int], others: Sequence[Sequence[int]]) -> Any:
    """Cosine of each painted picture with its own style picture (row `own` of `styles`), and its mean with `others`,
    [N] each; features must be `standardised`."""
    cosines = unit(painted) @ unit(styles).T
    with_own = cosines[np.arange(len(painted)), list(own)]
    with_others = np.array(
        [row[list(rest)].mean() if len(rest) else 0.0 for row, rest in zip(cosines, others, strict=True)]
    )
    return with_own, with_others


def standardised(features: Features, real: Features) -> Features:
    """Features with the mean and deviation of real pictures taken out: raw ones have cosines near 1 to everything."""
    deviation = real.std(axis=0)
    found: Features = (features - real.mean(axis=0)) / np.maximum(deviation, 1e-6 + 0.1 * float(deviation.mean()))
    return found


def curve(found: Mapping[float, Mapping[str, Mapping[str, float]]]) -> str:
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
