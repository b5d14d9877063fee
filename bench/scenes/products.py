"""Scenes of two and three products: none may be missing, and no other may be there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bench.scenes.subjects import Subjects, choose_distinct, cut_out, summarize
from canvas.inference.product import composite_pixels
from canvas.inference.scene.build import Scene, build_scene
from canvas.layout.spec import Layout, build_layout
from canvas.pins.images import Pixels, bytes_to_tensor, read_images
from canvas.uve.model import UveModel, compute_embeddings, load_uve
from evaluation.measures.canvases.products import count_products

CANVAS = "288x192"
QUANTILE = 0.95
"""Quantile of the similarities of different products, above which two count as the same product."""


@dataclass
class Counts:
    """Scenes of one kind, and what is wrong with them."""

    omitted: list[float] = field(default_factory=list)  # of each scene: products that are not recognized
    extra: list[float] = field(default_factory=list)  # things that are recognized and were not given
    duplicated: list[float] = field(default_factory=list)  # those that the embedding takes for one of the products

    def summarize(self) -> dict[str, Any]:
        """Return totals and the share of scenes that are right."""
        wrong = np.add(self.omitted, self.duplicated)
        return {
            "scenes": len(wrong),
            "omitted": int(sum(self.omitted)),
            "extra": int(sum(self.extra)),
            "duplicated": int(sum(self.duplicated)),
            "right": summarize((wrong == 0).astype(float).tolist()),
        }


def measure_products(subjects: Subjects, scenes: int) -> dict[str, Any]:
    """Generate scenes of two and three products in turn, and count."""
    uve = load_uve(subjects.root / "models" / "uve")
    cutouts = {pin.pin_id: cut_out(pin) for pin in subjects.pins}
    threshold = compute_threshold(subjects, uve)
    empty = list(_read_empty_scenes(subjects, scenes))
    rng, changed = np.random.default_rng(0), 0
    counts = {"generated": Counts(), "on real scenes": Counts()}
    for number in tqdm(range(scenes), desc="products", unit="scene"):
        pins = choose_distinct(subjects.pins, 2 + number % 2, rng)
        products = [cutouts[pin.pin_id] for pin in pins]
        layout = build_layout(CANVAS, layout="row", scale=0.8, heights=rng.uniform(0.7, 1.0, len(pins)).tolist())
        names = " and ".join(pin.product for pin in pins[:2])
        prompt = subjects.write_prompt(pins[0], subjects.get_background(number)).replace(pins[0].product, names)
        image = _generate(subjects, products, prompt, layout, 1000 + number)
        scene = build_scene(products, layout=layout)
        assert scene.owners is not None
        core = scene.owners >= 0
        changed += int((image[core] != scene.product.pixels[core]).any(-1).sum())
        embeddings = _embed(uve, [product.convert("RGB") for product in products])
        _count(subjects, uve, counts["generated"], image, scene, embeddings, threshold)
        if empty:
            backdrop = empty[number % len(empty)].resize((scene.product.size[1], scene.product.size[0]))
            pasted = composite_pixels(np.array(backdrop.convert("RGB")), scene.product)
            _count(subjects, uve, counts["on real scenes"], pasted, scene, embeddings, threshold)
    return {
        "core_pixels_changed": changed,
        "same_product_above": round(threshold, 3),
        **{name: counter.summarize() for name, counter in counts.items() if counter.omitted},
    }


def compute_threshold(subjects: Subjects, uve: UveModel) -> float:
    """Return the similarity that few different products reach."""
    pins = choose_distinct(subjects.pins, len(subjects.pins), np.random.default_rng(1))
    vectors = _embed(uve, [cut_out(pin).convert("RGB") for pin in pins])
    similar = vectors @ vectors.T
    return float(np.quantile(similar[np.triu_indices(len(pins), 1)], QUANTILE))


def _generate(subjects: Subjects, products: list[Image.Image], prompt: str, layout: Layout, seed: int) -> Pixels:
    try:
        output = subjects.pipeline(products, prompt, layout=layout, seed=seed)
    except ValueError as error:  # two names may be too long for the text towers
        if "too long" not in str(error) and "token" not in str(error):
            raise
        output = subjects.pipeline(products, prompt.partition(",")[2].strip(), layout=layout, seed=seed)
    return np.asarray(output.images[0])


def _count(
    subjects: Subjects,
    uve: UveModel,
    counts: Counts,
    image: Pixels,
    scene: Scene,
    embeddings: NDArray[np.float32],
    threshold: float,
) -> None:
    """Add what is wrong with one image to the counts."""
    assert scene.owners is not None
    recognized = subjects.segmenter.predict_alphas([Image.fromarray(image)], subjects.edges)[0]
    counted = count_products(recognized, scene.owners, scene.product.alpha)
    counts.omitted.append(len(counted.omitted))
    counts.extra.append(len(counted.extra))
    crops = [Image.fromarray(image[box.region]) for box in counted.extra]
    alike = (_embed(uve, crops) @ embeddings.T).max(1) if crops else np.zeros(0)
    counts.duplicated.append(int((alike > threshold).sum()))


def _embed(uve: UveModel, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Return unit vectors [N, E] of images of any size."""
    side = uve.config["image_size"]
    squares = np.stack([np.asarray(image.convert("RGB").resize((side, side))) for image in images])
    pixels = bytes_to_tensor(torch.from_numpy(squares)).permute(0, 3, 1, 2)
    return np.asarray(compute_embeddings(uve, pixels).cpu().numpy())


def _read_empty_scenes(subjects: Subjects, count: int) -> list[Image.Image]:
    """Return scenes before a product came in, of pins, where truth has them."""
    images = read_images(
        subjects.root / "artifacts" / "truth", [pin.pin_id for pin in subjects.pins[:count]], "background"
    )
    return list(images.values())
