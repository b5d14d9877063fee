"""Scores of generated backgrounds: recognized scene, growth of the product, change of its core, seams."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from canvas.inference.product import Product
from canvas.masks.composite import compute_seam_gradient
from canvas.pins.images import Pixels, bytes_to_tensor
from canvas.pins.masks import Mask
from canvas.pins.scene_views import Views, stack_views
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.judges.features import extract_scene_features
from evaluation.judges.judges import Judges
from evaluation.statistics.intervals import crossed_bootstrap_mean

OptionalValues = Sequence[float | None]  # one a score; None: it does not count


@dataclass(frozen=True, slots=True)
class BackgroundScore:
    """One image of a product on a prompted background."""

    product: str  # images of one product are not independent
    scene: str | None  # the prompted one; None: no judge knows it
    seen: str | None  # scene that the judge recognizes
    seen_sharp: str | None  # likewise, the judge of sharp images
    extension: float  # see `measure_growth`
    erosion: float
    seam: float | None  # gradient round the product's edge; None: it has none
    core_difference: int  # largest change of a byte on the product's core

    @property
    def scene_right(self) -> float | None:
        return None if self.scene is None else float(self.seen == self.scene)

    @property
    def scene_right_sharp(self) -> float | None:
        return None if self.scene is None else float(self.seen_sharp == self.scene)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundScorer:
    """What finds scene and product in generated images, and where seams are measured."""

    judges: Judges
    segmenter: Segmenter
    edges: EdgeSpec  # how its alphas are refined
    seam_side: int  # pixels of the square that seams are measured in
    seam_reach: int  # pixels on each side of the product's edge
    batch_size: int

    def score(
        self,
        images: Sequence[Pixels],
        views: Views,
        products: Sequence[Product],
        product_ids: Sequence[str],
        prompts: Sequence[str],
    ) -> list[BackgroundScore]:
        """Return the score of each image, of the size of its product; `views` are the images as judges see them."""
        scenes = self.judges.recognize_scenes(extract_scene_features(views, self.batch_size))
        seams = measure_seam_gradients(images, products, self.seam_side, self.seam_reach)
        scores = []
        for first in range(0, len(images), self.batch_size):
            batch = [Image.fromarray(image) for image in images[first : first + self.batch_size]]
            for index, alpha in enumerate(self.segmenter.predict_alphas(batch, self.edges), first):
                extension, erosion = measure_growth(products[index].alpha >= 0.5, alpha >= 0.5)
                scores.append(
                    BackgroundScore(
                        product=product_ids[index],
                        scene=self.judges.match_prompt(prompts[index]),
                        seen=scenes[index][0],
                        seen_sharp=scenes[index][1],
                        extension=extension,
                        erosion=erosion,
                        seam=seams[index],
                        core_difference=measure_core_difference(images[index], products[index]),
                    )
                )
        return scores


def measure_core_difference(image: Pixels, product: Product) -> int:
    """Return the largest change of a byte on the product's core, 0..255."""
    return int(np.abs(image.astype(int) - product.pixels)[product.core].max(initial=0))


def measure_growth(before: Mask, after: Mask) -> tuple[float, float]:
    """Return how much of its area the product gained (extension) and lost (erosion), both 0 or more.

    Extension is area(before or after) - area(before) (object extension of "Salient object-aware background generation",
    Eshratifar et al. 2024); erosion is area(before) - area(before and after). `before` must not be empty.
    """
    area = int(before.sum())
    if not area:
        raise ValueError("the product's mask is empty: growth is measured in parts of its area")
    return int((after & ~before).sum()) / area, int((before & ~after).sum()) / area


def measure_seam_gradients(
    images: Sequence[Pixels], products: Sequence[Product], side: int, reach: int
) -> list[float | None]:
    """Return the mean gradient round the product's edge in the middle square of each image (h, w, 3).

    The square is resized to `side` pixels, and `reach` of them count on each side of the edge; None: it has no edge.
    """
    views = stack_views([Image.fromarray(image) for image in images], side)
    hard = [Image.fromarray(((product.alpha >= 0.5) * 255).astype(np.uint8)) for product in products]
    masks = torch.from_numpy(stack_views(hard, side) >= 128)[:, None].float()
    pixels = bytes_to_tensor(torch.from_numpy(views)).permute(0, 3, 1, 2)
    gradients: list[float] = compute_seam_gradient(pixels, masks, reach).tolist()
    return [None if np.isnan(value) else value for value in gradients]


def compute_background_metrics(scores: Sequence[BackgroundScore]) -> dict[str, float]:
    """Return means over the images, each with its 95 % interval over the products, the prompts being given."""
    means = compute_crossed_means(
        {
            "scene_accuracy": [score.scene_right for score in scores],
            "scene_accuracy_sharp": [score.scene_right_sharp for score in scores],
            "extension_mean": [score.extension for score in scores],
            "erosion_mean": [score.erosion for score in scores],
        },
        [(score.product, "all prompts") for score in scores],
    )
    return {"pictures": len(scores), **means, "core_max_abs_diff": max(score.core_difference for score in scores)}


def compute_crossed_means(
    columns: Mapping[str, OptionalValues], groups: Sequence[tuple[Hashable, Hashable]]
) -> dict[str, float]:
    """Return the mean of the values of each column that count, with its interval; nothing where none does.

    Both groups of a value, such as its product and its style image, are resampled together.
    """
    metrics: dict[str, float] = {}
    for name, values in columns.items():
        pairs = [(float(value), group) for value, group in zip(values, groups, strict=True) if value is not None]
        if pairs:
            rows, others = zip(*(group for _, group in pairs), strict=True)
            metrics |= crossed_bootstrap_mean([value for value, _ in pairs], rows, others).to_metrics(name)
    return metrics


def compute_scene_accuracies(scores: Sequence[BackgroundScore]) -> dict[str, float]:
    """Return the share of images in which the judge recognizes the prompted scene, by scene."""
    return {
        scene: float(np.mean([score.seen == scene for score in scores if score.scene == scene]))
        for scene in sorted({score.scene for score in scores if score.scene is not None})
    }
