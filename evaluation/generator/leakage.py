"""Content leakage: does the product of a style picture turn up in what is painted after it?

A judge on features that no loss of the generator uses (evaluation.judges.features) learns, from real pictures, which
category of product it sees, large or small, or that it sees none, while part of the picture is hidden; in a painted
picture the product that belongs there is what is hidden. How many leaks it would find is told by products put into
painted pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.judges.features import extract_trunk_features
from evaluation.judges.scenes import INVERSE_PENALTY

if TYPE_CHECKING:
    from canvas.pins.scene_views import Views
    from canvas.styles.pins import LabelledProducts

Masks = NDArray[np.bool_]  # [N, h, w]

NO_PRODUCT = ""
"""What the judge says where it sees no product."""

GREY = 128
MAX_OCCLUSION = 0.25
"""Share of a product that may be hidden in a picture that is to teach what it looks like."""

LEAK_SIDE = 1 / 3
"""Longer side of a product that is put into a picture, in sides of the picture: small, for it is to be found beside
the product that belongs there."""


class ProductJudge:
    """Says which category of product it sees beside what is hidden. Build it with `learnt`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def learnt(cls, known: LabelledProducts, seed: int) -> ProductJudge | None:
        """From pictures with their product, without, and with a small one, each behind the shape of another's product;
        None where fewer than two kinds are known."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        (large, of_large), (small, of_small) = build_examples(known, seed), build_small_examples(known, seed)
        labels = of_large + of_small
        if len(set(labels)) < 2:
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=500))
        return cls(model.fit(extract_trunk_features(np.concatenate([large, small])), labels))

    def seen(self, views: Views, masks: Masks) -> list[str]:
        """The category seen in each of uint8 [N, h, w, 3] with `masks` hidden, or NOTHING."""
        return (
            [str(label) for label in self._model.predict(extract_trunk_features(hide_pixels(views, masks)))]
            if len(views)
            else []
        )


def hide_pixels(views: Views, masks: Masks) -> Views:
    """The views with mid-grey where a mask is True."""
    return np.where(masks[..., None], np.uint8(GREY), views)


def build_examples(known: LabelledProducts, seed: int) -> tuple[Views, list[str]]:
    """Pictures with something hidden, and what can be seen in them: a category, or NOTHING in the emptied ones."""
    covers = _shuffle_masks(known, seed)
    covered = (covers & known.masks).sum(axis=(1, 2)) / np.maximum(known.masks.sum(axis=(1, 2)), 1)
    clear = covered <= MAX_OCCLUSION
    views = np.concatenate([hide_pixels(known.views[clear], covers[clear]), hide_pixels(known.backgrounds, covers)])
    labels = [category for category, there in zip(known.categories, clear, strict=True) if there]
    return views, [*labels, *[NO_PRODUCT] * len(known.backgrounds)]


def build_small_examples(known: LabelledProducts, seed: int) -> tuple[Views, list[str]]:
    """Emptied pictures with something hidden and a product of their own product's category beside it; the
    categories."""
    covers = _shuffle_masks(known, seed)
    views, places = insert_products(known.backgrounds, covers, known.categories, known, seed)
    return hide_pixels(views, covers[places]), [known.categories[place] for place in places]


def _shuffle_masks(known: LabelledProducts, seed: int) -> Masks:
    """Shapes to hide, each some other picture's product."""
    return known.masks[np.random.default_rng(seed).permutation(len(known.masks))]


def compute_judge_metrics(judge: ProductJudge, known: LabelledProducts, seed: int) -> dict[str, float]:
    """How good the judge is on pictures that it has not seen: share of categories right where a product is, and share
    of emptied pictures in which it sees one."""
    views, labels = build_examples(known, seed)
    seen = judge.seen(views, np.zeros(views.shape[:3], bool))
    there = [said == label for said, label in zip(seen, labels, strict=True) if label != NO_PRODUCT]
    alarms = [said != NO_PRODUCT for said, label in zip(seen, labels, strict=True) if label == NO_PRODUCT]
    return {
        "product_judge_right": float(np.mean(there)) if there else 0.0,
        "product_judge_false_alarms": float(np.mean(alarms)) if alarms else 0.0,
    }


def detect_leaks(seen: Sequence[str], styles: Sequence[str | None], own: Sequence[str | None]) -> list[bool | None]:
    """For each painted picture, whether the style picture's category is seen in it; None where that is unknown, or is
    the category of the product that belongs there."""
    return [
        None if style is None or style == product else said == style
        for said, style, product in zip(seen, styles, own, strict=True)
    ]


def insert_products(
    views: Views, masks: Masks, categories: Sequence[str | None], known: LabelledProducts, seed: int
) -> tuple[Views, list[int]]:
    """Copies of views that show a product of their category, one of `known`, at a place that `masks` leave free; and
    which views they are of: those whose category is known and that have room."""
    draw = np.random.default_rng(seed)
    found, places = [views[:0]], []
    fitting: dict[str, list[int]] = {}
    for at, name in enumerate(known.categories):
        if known.masks[at].any():
            fitting.setdefault(name, []).append(at)
    for place, category in enumerate(categories):
        if category not in fitting:
            continue
        product, shape = _crop_product(known, int(draw.choice(fitting[category])), views.shape[1])
        free = find_free_corners(masks[place], shape)
        if not len(free):
            continue
        top, left = draw.choice(free)
        view = views[place].copy()
        view[top : top + shape.shape[0], left : left + shape.shape[1]][shape] = product[shape]
        found.append(view[None])
        places.append(place)
    return np.concatenate(found), places


def find_free_corners(mask: NDArray[np.bool_], shape: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows and columns [N, 2] of the top left corners at which `shape`, no larger than `mask`, lies within it and
    touches nothing that is True."""
    overlap = cv2.matchTemplate(mask.astype(np.float32), shape.astype(np.float32), cv2.TM_CCORR)  # pixels
    return np.argwhere(overlap < 0.5)


def _crop_product(known: LabelledProducts, at: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A known product [h, w, 3] and its shape [h, w], no larger than LEAK_SIDE of `side`."""
    rows, columns = (np.flatnonzero(known.masks[at].any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    picture, shape = known.views[at][box], known.masks[at][box]
    scale = min(1.0, LEAK_SIDE * side / max(shape.shape))
    size = [max(1, round(scale * length)) for length in shape.shape[::-1]]
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, np.asarray(cv2.resize(shape.astype(np.float32), size, interpolation=cv2.INTER_AREA)) >= 0.5
