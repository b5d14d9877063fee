"""Are all products of a scene there, each once? What a segmenter recognizes, and an embedding compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.inference.scene.build import Scene
from canvas.pins.images import Pixels, bytes_to_tensor
from canvas.pins.products import ProductPin
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from canvas.uve.model import UveModel, compute_embeddings, load_uve
from evaluation.measures.canvases.products import count_products
from evaluation.scenes.subjects import Subjects, choose_distinct, cut_out

QUANTILE = 0.95
"""Quantile of the similarities of different products, above which two count as the same product."""


@dataclass(frozen=True, slots=True)
class SceneCount:
    """What is wrong with one scene."""

    omitted: int  # products that are not recognized
    extra: int  # things that are recognized and were not given
    duplicated: int  # those of them that the embedding takes for one of the products


@dataclass(frozen=True, slots=True)
class ProductCounter:
    """What recognizes products, and says which are the same."""

    segmenter: Segmenter
    edges: EdgeSpec
    uve: UveModel
    threshold: float  # similarity above which two products count as the same

    @classmethod
    def load(cls, uve: Path, subjects: Subjects, pins: Sequence[ProductPin]) -> ProductCounter:
        """Load the embedding of the directory `uve`, and take from `pins` how alike different products are."""
        embedding = load_uve(uve)
        return cls(subjects.segmenter, subjects.edges, embedding, compute_threshold(embedding, pins))

    def count(self, image: Pixels, scene: Scene, products: Sequence[Image.Image]) -> SceneCount:
        """Count what is wrong with an image (H, W, 3) of a scene with these products."""
        assert scene.owners is not None, "a scene of several products has a layout"
        recognized = self.segmenter.predict_alphas([Image.fromarray(image)], self.edges)[0]
        counted = count_products(recognized, scene.owners, scene.product.alpha)
        duplicated = 0
        if counted.extra:
            crops = [Image.fromarray(image[box.region]) for box in counted.extra]
            alike = embed_images(self.uve, crops) @ embed_images(self.uve, products).T
            duplicated = int((alike.max(1) > self.threshold).sum())
        return SceneCount(len(counted.omitted), len(counted.extra), duplicated)


def compute_threshold(uve: UveModel, pins: Sequence[ProductPin]) -> float:
    """Return the similarity that few different products among `pins` reach; of one product alone 1."""
    distinct = choose_distinct(pins, len(pins), np.random.default_rng(1))
    if len(distinct) < 2:
        return 1.0
    vectors = embed_images(uve, [cut_out(pin) for pin in distinct])
    return float(np.quantile((vectors @ vectors.T)[np.triu_indices(len(distinct), 1)], QUANTILE))


def embed_images(uve: UveModel, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Return unit vectors [N, E] of images of any size."""
    side = uve.config["image_size"]
    squares = np.stack([np.asarray(image.convert("RGB").resize((side, side))) for image in images])
    pixels = bytes_to_tensor(torch.from_numpy(squares)).permute(0, 3, 1, 2)
    return np.asarray(compute_embeddings(uve, pixels).cpu().numpy())


def summarize_counts(counts: Sequence[SceneCount]) -> dict[str, int]:
    """Return what is wrong with all scenes together."""
    return {
        "omitted": sum(count.omitted for count in counts),
        "extra": sum(count.extra for count in counts),
        "duplicated": sum(count.duplicated for count in counts),
    }
