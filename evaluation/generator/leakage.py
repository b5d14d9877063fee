"""Content leakage: does the product of a style image turn up in images generated after it?

A judge on features that no loss of the generator uses (evaluation.judges.features) is fitted to real images with a part
hidden: it recognizes the category of a product, large or small, or that there is none. In a generated image the product
that belongs there is hidden. Products inserted into generated images measure how many leaks the judge detects.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from canvas.pins.masks import compute_box
from canvas.pins.scene_views import Views
from canvas.styles.pins import LabelledProducts
from evaluation.judges.features import extract_trunk_features
from evaluation.judges.judges import INVERSE_PENALTY

Masks = NDArray[np.bool_]  # [N, h, w]

NO_PRODUCT = ""  # the label of images without a product

GREY = 128
MAX_OCCLUSION = 0.25  # share of a product that may be hidden in an example of it
LEAK_SIDE = 1 / 3  # longer side of an inserted product, in sides of the image: small, as it lies beside the image's own


class ProductJudge:
    """Recognizes the category of the product beside what is hidden. Build it with `fit`."""

    def __init__(self, model: Pipeline) -> None:
        self._model = model

    @classmethod
    def fit(cls, products: LabelledProducts, seed: int) -> ProductJudge | None:
        """Fit the judge to images with their product, without, and with a small one; None for fewer than two labels.

        Each has the shape of another image's product hidden.
        """
        large, large_labels = build_examples(products, seed)
        small, small_labels = build_small_examples(products, seed)
        labels = large_labels + small_labels
        if len(set(labels)) < 2:
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=500))
        return cls(model.fit(extract_trunk_features(np.concatenate([large, small])), labels))

    def recognize_products(self, views: Views, masks: Masks) -> list[str]:
        """Return the category in each of uint8 [N, h, w, 3] with `masks` hidden, or NO_PRODUCT."""
        if not len(views):
            return []
        return [str(label) for label in self._model.predict(extract_trunk_features(hide_pixels(views, masks)))]


def hide_pixels(views: Views, masks: Masks) -> Views:
    """Return the views with mid-grey where a mask is True."""
    return np.where(masks[..., None], np.uint8(GREY), views)


def build_examples(products: LabelledProducts, seed: int) -> tuple[Views, list[str]]:
    """Return images with a part hidden, and their labels: a category, or NO_PRODUCT for backgrounds alone."""
    covers = _shuffle_masks(products, seed)
    occlusion = (covers & products.masks).sum(axis=(1, 2)) / np.maximum(products.masks.sum(axis=(1, 2)), 1)
    clear = occlusion <= MAX_OCCLUSION
    visible, empty = hide_pixels(products.views[clear], covers[clear]), hide_pixels(products.backgrounds, covers)
    labels = [category for category, is_clear in zip(products.categories, clear, strict=True) if is_clear]
    return np.concatenate([visible, empty]), [*labels, *[NO_PRODUCT] * len(empty)]


def build_small_examples(products: LabelledProducts, seed: int) -> tuple[Views, list[str]]:
    """Return backgrounds with a part hidden and a small product of their own category beside it, and the categories."""
    covers = _shuffle_masks(products, seed)
    views, indices = insert_products(products.backgrounds, covers, products.categories, products, seed)
    return hide_pixels(views, covers[indices]), [products.categories[index] for index in indices]


def _shuffle_masks(products: LabelledProducts, seed: int) -> Masks:
    return products.masks[np.random.default_rng(seed).permutation(len(products.masks))]


def compute_judge_metrics(judge: ProductJudge, products: LabelledProducts, seed: int) -> dict[str, float]:
    """Return the share of right categories, and of backgrounds in which the judge recognizes a product."""
    views, labels = build_examples(products, seed)
    pairs = list(zip(judge.recognize_products(views, np.zeros(views.shape[:3], bool)), labels, strict=True))
    hits = [output == label for output, label in pairs if label != NO_PRODUCT] or [False]
    alarms = [output != NO_PRODUCT for output, label in pairs if label == NO_PRODUCT] or [False]
    return {"product_judge_right": float(np.mean(hits)), "product_judge_false_alarms": float(np.mean(alarms))}


def detect_leaks(
    labels: Sequence[str], styles: Sequence[str | None], product_categories: Sequence[str | None]
) -> list[bool | None]:
    """Return whether each image's label is its style's category; None where that is unknown, or the own product's."""
    return [
        None if style is None or style == product else label == style
        for label, style, product in zip(labels, styles, product_categories, strict=True)
    ]


def insert_products(
    views: Views, masks: Masks, categories: Sequence[str | None], products: LabelledProducts, seed: int
) -> tuple[Views, list[int]]:
    """Insert a product of its category into each view, where `masks` leave room.

    Returns:
        Copies with a product, and the indices of their views: those with a known category and room.
    """
    rng = np.random.default_rng(seed)
    copies, indices = [views[:0]], []
    by_category: dict[str, list[int]] = {}
    for number, name in enumerate(products.categories):
        if products.masks[number].any():
            by_category.setdefault(name, []).append(number)
    for index, category in enumerate(categories):
        if category not in by_category:
            continue
        product, shape = _crop_product(products, int(rng.choice(by_category[category])), views.shape[1])
        free = find_free_corners(masks[index], shape)
        if not len(free):
            continue
        top, left = rng.choice(free)
        view = views[index].copy()
        view[top : top + shape.shape[0], left : left + shape.shape[1]][shape] = product[shape]
        copies.append(view[None])
        indices.append(index)
    return np.concatenate(copies), indices


def find_free_corners(mask: NDArray[np.bool_], shape: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the top left corners [N, 2] at which `shape` lies within `mask` and touches nothing True."""
    overlap = cv2.matchTemplate(mask.astype(np.float32), shape.astype(np.float32), cv2.TM_CCORR)  # pixels
    return np.argwhere(overlap < 0.5)


def _crop_product(products: LabelledProducts, index: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a product [h, w, 3] and its shape [h, w], no larger than LEAK_SIDE of `side`."""
    x0, y0, x1, y1 = compute_box(products.masks[index])
    box = slice(y0, y1), slice(x0, x1)
    pixels, shape = products.views[index][box], products.masks[index][box]
    scale = min(1.0, LEAK_SIDE * side / max(shape.shape))
    size = [max(1, round(scale * length)) for length in shape.shape[::-1]]
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, np.asarray(cv2.resize(shape.astype(np.float32), size, interpolation=cv2.INTER_AREA)) >= 0.5
