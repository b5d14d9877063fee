"""Two images of one product of which it is known which is better: what the reward model is trained on.

Nobody was asked: the images are real ones and their corruptions. S is the side of the square that all are resized to;
Q are the HEADS of the reward model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canvas.pins import tables
from canvas.pins.images import Pixels
from canvas.reward.corruptions import CORRUPTIONS, corrupt_image, has_texture, replace_background, soften_background
from canvas.reward.product_views import ProductView, SceneView
from canvas.reward.spec import HEADS
from canvas.train.draws import mix_seed

Labels = NDArray[np.float32]  # (Q,), 0..1, NaN unknown
UNKNOWN = math.nan
SYNTHETIC_HEADS = HEADS[:3]  # that a corruption hurts one by one; the others ask for the image as a whole
QUESTION_BY_HEAD = dict(zip(HEADS, (*tables.QUESTIONS, "preference"), strict=True))
"""Head -> question of a judgment. Overall preference is asked with and without a prompt."""

COMPARISON_SHARES = (0.5, 0.15, 0.15)
"""Shares of comparisons: real with corrupted, milder with stronger, one kind with another; the rest is about scenes."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How an image was made from a view."""

    kind: str | None = None  # one of CORRUPTIONS; None: not corrupted
    strength: float = 0.0
    seed: int = 0
    scene: int | None = None  # number of the scene that the product was placed in; None: its own

    def format_name(self, pin_id: str) -> str:
        """Return the image's name in judgments: the pin, and what was made of it."""
        changes = [] if self.scene is None else [f"scene-{self.scene}"]
        changes += [] if self.kind is None else [f"{self.kind}-{self.strength:.3f}-{self.seed}"]
        return "+".join([pin_id, *changes])

    def get_background(self, view: ProductView, scenes: Sequence[SceneView]) -> str:
        """Return the words of the background that the image shows."""
        return view.background if self.scene is None else scenes[self.scene].background


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants of one view, and the background that was asked for ("": none)."""

    view: int
    first: Variant
    second: Variant
    prompt: str

    @property
    def kinds(self) -> frozenset[str]:
        """Corruptions in it, "scene" among them."""
        both = (self.first, self.second)
        scene = {"scene"} if any(variant.scene is not None for variant in both) else set()
        return frozenset({variant.kind for variant in both if variant.kind is not None} | scene)


def sample_comparisons(
    views: Sequence[ProductView], scenes: Sequence[SceneView], kinds: Sequence[str], count: int, seed: int
) -> list[Comparison]:
    """Sample `count` comparisons under the corruptions `kinds`, every view in turn; scenes are compared only where
    one with other words is known."""
    visible = [[kind for kind in kinds if _is_visible(kind, view)] for view in views]
    others = {
        background: [number for number, scene in enumerate(scenes) if scene.background != background]
        for background in {view.background for view in views}
    }
    comparisons = []
    for number in range(count):
        index, rng = number % len(views), np.random.default_rng(mix_seed(seed, number))
        background = views[index].background
        turn = rng.random()
        if turn >= sum(COMPARISON_SHARES) and background and others[background]:
            scene = others[background][int(rng.integers(len(others[background])))]
            prompt = (background, scenes[scene].background)[int(rng.random() < 0.5)]
            pair = Variant(), Variant(scene=scene)
        else:
            prompt = background if rng.random() < 0.5 else ""
            pair = _sample_variants(visible[index], turn, rng)
        comparisons.append(_shuffle_pair(index, *pair, prompt, rng))
    return comparisons


def sample_real_comparisons(views: Sequence[ProductView], kind: str, count: int, seed: int) -> list[Comparison]:
    """Compare real images with their corruption `kind`: `count`, or as many as views that it shows on."""
    visible = [index for index, view in enumerate(views) if _is_visible(kind, view)]
    comparisons = []
    for place in np.linspace(0, len(visible) - 1, min(count, len(visible))).round().astype(int):
        rng = np.random.default_rng(mix_seed(seed, int(place)))
        comparisons.append(_shuffle_pair(visible[place], Variant(), _sample_corruption(kind, rng), "", rng))
    return comparisons


def sample_background_comparisons(
    views: Sequence[ProductView], scenes: Sequence[SceneView], count: int, seed: int
) -> list[Comparison]:
    """Compare real images with their product in a scene of other words, every view in turn: either is asked for."""
    background_views = [index for index, view in enumerate(views) if view.background]
    comparisons = []
    for number in range(count if background_views else 0):
        index, rng = background_views[number % len(background_views)], np.random.default_rng(mix_seed(seed, number))
        background = views[index].background
        others = [place for place, scene in enumerate(scenes) if scene.background != background]
        if others:
            scene = others[int(rng.integers(len(others)))]
            prompt = (background, scenes[scene].background)[int(rng.random() < 0.5)]
            comparisons.append(_shuffle_pair(index, Variant(), Variant(scene=scene), prompt, rng))
    return comparisons


def render_variant(view: ProductView, variant: Variant, scenes: Sequence[SceneView], softness: float = 0.0) -> Pixels:
    """Return the image [S, S, 3]; `softness`: blur of its background before it is corrupted, a deviation in pixels."""
    image = view.pixels
    if variant.scene is not None:
        image = replace_background(image, view.mask, scenes[variant.scene].pixels)
    if softness > 0.1:
        image = soften_background(image, view.mask, softness)
    if variant.kind is not None:
        image = corrupt_image(image, view.mask, variant.kind, variant.strength, variant.seed)
    return image


def compute_absolute_labels(variant: Variant, view: ProductView, scenes: Sequence[SceneView], prompt: str) -> Labels:
    """Return what is known of an image: 1 good, 0 bad. Of a product placed in another scene its fidelity is known."""
    corruption = CORRUPTIONS[variant.kind] if variant.kind is not None else None
    labels = {}
    for head in SYNTHETIC_HEADS:
        is_unclear = corruption is not None and head in corruption.unclear
        if corruption is not None and head in corruption.hurts:
            labels[head] = 0.0
        else:
            labels[head] = UNKNOWN if is_unclear or (variant.scene is not None and head != "fidelity") else 1.0
    labels["overall"] = float(corruption is None) if variant.scene is None else UNKNOWN
    is_prompted = variant.get_background(view, scenes) == prompt
    labels["prompted"] = UNKNOWN if not prompt else float(corruption is None and is_prompted)
    return np.array([labels[head] for head in HEADS], np.float32)


def compute_preferences(comparison: Comparison, first: Labels, second: Labels) -> Labels:
    """Return how much the first image is preferred, 1 or 0, by both images' absolute labels.

    Of two that were hurt by one kind the milder is; of two hurt by different kinds it is unknown.
    """
    preferred = np.where((first == second) | np.isnan(second), np.nan, first)
    one, other = comparison.first, comparison.second
    if one.kind is not None and one.kind == other.kind:
        preferred[(first == 0) & (second == 0)] = float(one.strength < other.strength)
    return preferred.astype(np.float32)


def _sample_variants(kinds: Sequence[str], turn: float, rng: np.random.Generator) -> tuple[Variant, Variant]:
    """Sample a real image and a corrupted one, a milder and a stronger one, or two kinds, by `turn` in 0..1."""
    one, other = (str(kind) for kind in rng.choice(kinds, 2, replace=len(kinds) < 2))
    if turn < COMPARISON_SHARES[0] or turn >= sum(COMPARISON_SHARES):
        return Variant(), _sample_corruption(one, rng)
    if turn >= sum(COMPARISON_SHARES[:2]):
        return _sample_corruption(one, rng), _sample_corruption(other, rng)
    mild, seed = float(rng.uniform(0, 0.5)), int(rng.integers(2**31))
    return Variant(one, round(mild, 3), seed), Variant(one, round(mild + float(rng.uniform(0.3, 0.5)), 3), seed)


def _shuffle_pair(index: int, one: Variant, other: Variant, prompt: str, rng: np.random.Generator) -> Comparison:
    first, second = (one, other) if rng.random() < 0.5 else (other, one)
    return Comparison(index, first, second, prompt)


def _sample_corruption(kind: str, rng: np.random.Generator) -> Variant:
    return Variant(kind, round(float(rng.uniform(0, 1)), 3), int(rng.integers(2**31)))


def _is_visible(kind: str, view: ProductView) -> bool:
    return not CORRUPTIONS[kind].needs_texture or has_texture(view.pixels, view.mask)
