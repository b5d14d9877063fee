"""Two pictures of one product of which it is known what is better in which: what the reward model is trained on.

Nobody was asked: the pictures are real ones and what corruptions made of them. S is the side of the square that all
are squeezed into; Q are the HEADS of the reward model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.reward.corruptions import (
    CORRUPTIONS,
    Pixels,
    corrupt_image,
    has_texture,
    replace_background,
    soften_background,
)
from canvas.reward.model import hash_words
from canvas.reward.product_views import ProductView, SceneView
from canvas.reward.spec import HEADS
from canvas.train.data import Batch, select_batch_rows
from canvas.train.draws import mix_seed

SYNTHETIC_HEADS = HEADS[:3]
"""Heads that corruptions speak of one by one; the others ask for the picture as a whole."""

UNKNOWN = math.nan

COMPARISON_SHARES = (0.5, 0.15, 0.15)
"""Of comparisons: real with corrupted, milder with stronger, one kind with another; the rest is about scenes."""

MAX_SOFTNESS = 1 / 64
"""Standard deviation of the strongest blur, of the side, that both pictures of a pair may have: a generator's are
softer than photographs, and how soft must not be all that counts."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What was made of a view."""

    kind: str | None = None  # one of CORRUPTIONS; None: nothing
    strength: float = 0.0
    seed: int = 0
    scene: int | None = None  # number of the scene that the product was placed in; None: its own

    def name(self, pin_id: str) -> str:
        """Of the picture, in judgments: what it was made of and how."""
        made = [] if self.scene is None else [f"scene-{self.scene}"]
        made += [] if self.kind is None else [f"{self.kind}-{self.strength:.3f}-{self.seed}"]
        return "+".join([pin_id, *made])


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
        scene = {"scene"} if any(one.scene is not None for one in both) else set()
        return frozenset({one.kind for one in both if one.kind is not None} | scene)


def sample_comparisons(
    views: Sequence[ProductView], scenes: Sequence[SceneView], kinds: Sequence[str], count: int, seed: int
) -> list[Comparison]:
    """`count` comparisons under the corruptions `kinds`, every view in turn; those about scenes only where one with
    other words is known."""
    usable = [[kind for kind in kinds if _is_visible(kind, view)] for view in views]
    words = {view.background for view in views}
    others = {
        background: [number for number, scene in enumerate(scenes) if scene.background != background]
        for background in words
    }
    found = []
    for number in range(count):
        index, rng = number % len(views), np.random.default_rng(mix_seed(seed, number))
        background = views[index].background
        turn = rng.random()
        if turn >= sum(COMPARISON_SHARES) and background and others[background]:
            scene = others[background][int(rng.integers(len(others[background])))]
            asked = (background, scenes[scene].background)[int(rng.random() < 0.5)]
            found.append(_shuffle_pair(index, Variant(), Variant(scene=scene), asked, rng))
        else:
            prompt = background if rng.random() < 0.5 else ""
            found.append(_shuffle_pair(index, *_sample_variants(usable[index], turn, rng), prompt, rng))
    return found


def sample_real_comparisons(views: Sequence[ProductView], kind: str, count: int, seed: int) -> list[Comparison]:
    """Real pictures with what the corruption `kind` made of them, `count` or as many as views that it shows on."""
    usable = [index for index, view in enumerate(views) if _is_visible(kind, view)]
    found = []
    for place in np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int):
        rng = np.random.default_rng(mix_seed(seed, int(place)))
        found.append(_shuffle_pair(usable[place], Variant(), _sample_corruption(kind, rng), "", rng))
    return found


def render_variant(view: ProductView, variant: Variant, scenes: Sequence[SceneView], softness: float = 0.0) -> Pixels:
    """The picture [S, S, 3]; `softness`: of its background before it is corrupted, standard deviation in pixels."""
    picture = view.pixels
    if variant.scene is not None:
        picture = replace_background(picture, view.mask, scenes[variant.scene].pixels)
    if softness > 0.1:
        picture = soften_background(picture, view.mask, softness)
    if variant.kind is not None:
        picture = corrupt_image(picture, view.mask, variant.kind, variant.strength, variant.seed)
    return picture


def compute_absolute_labels(
    variant: Variant, view: ProductView, scenes: Sequence[SceneView], prompt: str
) -> NDArray[np.float32]:
    """What is known of a picture (Q,): 1 good, 0 bad, NaN unknown."""
    made = CORRUPTIONS[variant.kind] if variant.kind is not None else None
    known = {head: _compute_head_label(head, variant) for head in SYNTHETIC_HEADS}
    background = _get_background(variant, view, scenes)
    known["overall"] = float(made is None) if variant.scene is None else UNKNOWN
    known["prompted"] = UNKNOWN if not prompt else float(made is None and background == prompt)
    return np.array([known[head] for head in HEADS], np.float32)


def _get_background(variant: Variant, view: ProductView, scenes: Sequence[SceneView]) -> str:
    return view.background if variant.scene is None else scenes[variant.scene].background


def compute_preferences(
    comparison: Comparison, goods: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """How much the first picture is preferred (Q,): 1 or 0, NaN where the question tells nothing.

    Of two that were hurt by one kind the milder is; of two hurt by different kinds nobody knows.
    """
    first, second = goods
    known = np.where(first == second, np.nan, first)
    known[np.isnan(first) | np.isnan(second)] = np.nan
    one, other = comparison.first, comparison.second
    if one.kind is not None and one.kind == other.kind:
        known[(first == 0) & (second == 0)] = float(one.strength < other.strength)
    return known.astype(np.float32)


class ComparisonBatches:
    """Batches of comparisons for the objective of canvas.reward.objective. Each is drawn anew every epoch:
    mirrored or not, its background more or less soft, both pictures alike; `vary=False` shows them as they are."""

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        views: Sequence[ProductView],
        scenes: Sequence[SceneView],
        *,
        words: int,
        batch_size: int,
        seed: int,
        vary: bool = True,
    ) -> None:
        if not comparisons:
            raise ValueError("there is nothing to compare: no kept pin has an accepted mask")
        self.comparisons, self.views, self.scenes = comparisons, views, scenes
        self.words, self.batch_size, self.seed, self.vary = words, batch_size, seed, vary

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        rows = select_batch_rows(len(self.comparisons), self.batch_size, self.seed, step, rank, world)
        first = rank * len(rows)
        seeds = [mix_seed(self.seed, step, first + place) for place in range(len(rows))]
        return self.batch([self.comparisons[row] for row in rows], seeds)

    def batch(self, comparisons: Sequence[Comparison], seeds: Sequence[int] | None = None) -> Batch:
        """Those comparisons; `seeds`: of how they are varied."""
        pairs = [
            self._pictures(comparison, None if seeds is None or not self.vary else seeds[place])
            for place, comparison in enumerate(comparisons)
        ]
        goods = [
            (
                compute_absolute_labels(one.first, self.views[one.view], self.scenes, one.prompt),
                compute_absolute_labels(one.second, self.views[one.view], self.scenes, one.prompt),
            )
            for one in comparisons
        ]
        images = torch.from_numpy(np.stack([pair[:3] for pair in pairs])).permute(0, 1, 4, 2, 3).contiguous()
        return {
            "pin_id": [self.views[one.view].pin_id for one in comparisons],
            "first": images[:, 0],
            "second": images[:, 1],
            "originals": images[:, 2],
            "masks": torch.from_numpy(np.stack([pair[3] for pair in pairs]))[:, None],
            "words": hash_words([one.prompt for one in comparisons], self.words),
            "first_shown": self._backgrounds(comparisons, [one.first for one in comparisons]),
            "second_shown": self._backgrounds(comparisons, [one.second for one in comparisons]),
            "preferred": torch.from_numpy(
                np.stack([compute_preferences(one, good) for one, good in zip(comparisons, goods, strict=True)])
            ),
            "first_good": torch.from_numpy(np.stack([good[0] for good in goods])),
            "second_good": torch.from_numpy(np.stack([good[1] for good in goods])),
        }

    def _backgrounds(self, comparisons: Sequence[Comparison], variants: Sequence[Variant]) -> torch.Tensor:
        """What the variants of those comparisons show, hashed."""
        pairs = zip(comparisons, variants, strict=True)
        return hash_words(
            [_get_background(variant, self.views[one.view], self.scenes) for one, variant in pairs], self.words
        )

    def _pictures(self, comparison: Comparison, seed: int | None) -> tuple[Pixels, Pixels, Pixels, NDArray[np.bool_]]:
        """Both pictures, the original, the mask."""
        view = self.views[comparison.view]
        softness, mirror = 0.0, False
        if seed is not None:
            rng = np.random.default_rng(seed)
            softness = max(0.0, rng.uniform(-1, 1)) * MAX_SOFTNESS * view.mask.shape[0]
            mirror = bool(rng.random() < 0.5)
        shown = (
            render_variant(view, comparison.first, self.scenes, softness),
            render_variant(view, comparison.second, self.scenes, softness),
            view.pixels,
            view.mask,
        )
        return tuple(one[:, ::-1] if mirror else one for one in shown)  # type: ignore[return-value]


def _sample_variants(kinds: Sequence[str], turn: float, rng: np.random.Generator) -> tuple[Variant, Variant]:
    """A real picture and a corrupted one, a milder and a stronger one, or two kinds, by `turn` in 0..1."""
    one, other = (str(kind) for kind in rng.choice(kinds, 2, replace=len(kinds) < 2))
    if turn < COMPARISON_SHARES[0] or turn >= sum(COMPARISON_SHARES):
        return Variant(), _sample_corruption(one, rng)
    if turn >= sum(COMPARISON_SHARES[:2]):
        return _sample_corruption(one, rng), _sample_corruption(other, rng)
    mild, seed = float(rng.uniform(0, 0.5)), int(rng.integers(2**31))
    return Variant(one, round(mild, 3), seed), Variant(one, round(mild + float(rng.uniform(0.3, 0.5)), 3), seed)


def _shuffle_pair(index: int, one: Variant, other: Variant, prompt: str, rng: np.random.Generator) -> Comparison:
    """The two in random order."""
    first, second = (one, other) if rng.random() < 0.5 else (other, one)
    return Comparison(index, first, second, prompt)


def _sample_corruption(kind: str, rng: np.random.Generator) -> Variant:
    return Variant(kind, round(float(rng.uniform(0, 1)), 3), int(rng.integers(2**31)))


def _is_visible(kind: str, view: ProductView) -> bool:
    return not CORRUPTIONS[kind].needs_texture or has_texture(view.pixels, view.mask)


def _compute_head_label(head: str, variant: Variant) -> float:
    """1 or 0, NaN unknown; of pasted products only the product itself is known."""
    made = CORRUPTIONS[variant.kind] if variant.kind is not None else None
    if made is not None and head in made.hurts:
        return 0.0
    unclear = (made is not None and head in made.unclear) or (variant.scene is not None and head != "fidelity")
    return UNKNOWN if unclear else 1.0
