"""Scenes of two and three products: none may be missing, and no other may be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.scenes.subjects import summarize
from canvas.inference.product import composite_pixels
from canvas.inference.scene.build import build_scene
from canvas.layout.spec import build_layout
from canvas.pins.images import read_images
from evaluation.scenes.generation import measure_scene_core
from evaluation.scenes.products import ProductCounter, SceneCount, summarize_counts
from evaluation.scenes.subjects import Subjects, choose_distinct, cut_out

CANVAS = "288x192"


def measure_products(subjects: Subjects, root: Path, scenes: int) -> dict[str, Any]:
    """Generate scenes of two and three products in turn and count; also on empty scenes of the full run's truth."""
    counter = ProductCounter.load(root / "models" / "uve", subjects, subjects.pins)
    cutouts = {pin.pin_id: cut_out(pin) for pin in subjects.pins}
    empty = _read_empty_scenes(subjects, root, scenes)
    rng, differences = np.random.default_rng(0), [0]
    counts: dict[str, list[SceneCount]] = {"generated": [], "on real scenes": []}
    for number in tqdm(range(scenes), desc="products", unit="scene"):
        pins = choose_distinct(subjects.pins, 2 + number % 2, rng)
        products = [cutouts[pin.pin_id] for pin in pins]
        layout = build_layout(CANVAS, layout="row", scale=0.8, heights=rng.uniform(0.7, 1.0, len(pins)).tolist())
        prompt = subjects.write_prompt(pins, subjects.get_background(number))
        image = np.asarray(subjects.pipeline(products, prompt, layout=layout, seed=1000 + number).images[0])
        scene = build_scene(products, layout=layout)
        differences.append(measure_scene_core(image, scene))
        counts["generated"].append(counter.count(image, scene, products))
        if empty:
            backdrop = empty[number % len(empty)].resize((scene.product.size[1], scene.product.size[0]))
            pasted = composite_pixels(np.array(backdrop.convert("RGB")), scene.product)
            counts["on real scenes"].append(counter.count(pasted, scene, products))
    return {
        "core_max_abs_diff": max(differences),
        "same_product_above": round(counter.threshold, 3),
        **{name: _summarize_counts(of_kind) for name, of_kind in counts.items() if of_kind},
    }


def _summarize_counts(counts: Sequence[SceneCount]) -> dict[str, Any]:
    """Return totals and the share of scenes that are right."""
    right = [float(count.omitted + count.duplicated == 0) for count in counts]
    return {"scenes": len(counts), **summarize_counts(counts), "right": summarize(right)}


def _read_empty_scenes(subjects: Subjects, root: Path, count: int) -> list[Image.Image]:
    """Return scenes before a product came in, of pins, where truth has them."""
    pin_ids = [pin.pin_id for pin in subjects.pins[:count]]
    return list(read_images(root / "artifacts" / "truth", pin_ids, "background").values())
