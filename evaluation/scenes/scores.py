"""Scores of slices: the prompted scene, the exact core or its certificate, products that are missing or too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from canvas.inference.scene.build import build_scene
from canvas.pins.fallbacks import Notes
from canvas.pins.scene_views import stack_views
from evaluation.generator.background_scores import compute_crossed_means
from evaluation.judges.features import extract_scene_features
from evaluation.judges.judges import Judges
from evaluation.scenes.generation import Images, SceneImage
from evaluation.scenes.products import ProductCounter, SceneCount, summarize_counts


def measure_slices(
    images: Images, judges: Judges, side: int, counter: ProductCounter, notes: Notes
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return family -> slice -> figures; why certificates fail goes to `notes`.

    `n` is the number of images, `scene_right` the share in which the judge sees the prompted scene, with its interval
    over products or scenes. Exact modes have `core_max_abs_diff` (0..255), mode soft `certificates_failed` (share),
    numbers of products what `summarize_counts` returns.

    Args:
        images: By family and slice.
        judges: Of scenes.
        side: Pixels of the squares that they see.
        counter: Of the products in the family "products".
        notes: Of the stage.
    """
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for family, slices in images.items():
        for name, members in slices.items():
            values: dict[str, Any] = {"n": len(members)} | measure_scene_accuracy(members, judges, side)
            if members[0].request.is_soft:
                faults = [member.fault for member in members]
                values["certificates_failed"] = float(np.mean([fault is not None for fault in faults]))
                for fault in filter(None, faults):
                    notes.add(f"in {family} {name} a certificate does not hold: {fault}")
            else:
                values["core_max_abs_diff"] = max(member.core_difference or 0 for member in members)
            if family == "products":
                values |= summarize_counts(_count_products(counter, members))
            figures.setdefault(family, {})[name] = values
    return figures


def measure_scene_accuracy(images: Sequence[SceneImage], judges: Judges, side: int) -> dict[str, float]:
    """Return `scene_right` with its interval; nothing where no judge knows a prompted scene."""
    made = [image for image in images if image.pixels is not None]
    views = stack_views([Image.fromarray(image.pixels) for image in made if image.pixels is not None], side)
    right: list[float | None] = []
    for image, (seen, _) in zip(made, judges.recognize_scenes(extract_scene_features(views)), strict=True):
        scene = judges.match_prompt(image.request.background)
        right.append(None if scene is None else float(seen == scene))
    return compute_crossed_means({"scene_right": right}, [(image.request.group, "its prompt") for image in made])


def compute_totals(figures: dict[str, dict[str, dict[str, Any]]]) -> dict[str, float]:
    """Return `omitted`, `extra` and `duplicated` over the products of scenes of several; {} without such scenes."""
    several = {int(count): values for count, values in figures["products"].items() if int(count) > 1}
    given = sum(count * values["n"] for count, values in several.items())
    if not given:
        return {}
    return {
        name: sum(values[name] for values in several.values()) / given for name in ("omitted", "extra", "duplicated")
    }


def _count_products(counter: ProductCounter, images: Sequence[SceneImage]) -> list[SceneCount]:
    counts = []
    for image in images:
        assert image.pixels is not None, "a plain image is always there"
        scene = build_scene(image.request.images, image.request.masks, image.request.layout)
        counts.append(counter.count(image.pixels, scene, image.request.images))
    return counts
