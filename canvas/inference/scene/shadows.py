"""Shadows and reflections of all products of a scene, each as if it stood there alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from canvas.inference.scene.build import Scene
from canvas.layout.compose import NO_PRODUCT
from canvas.light.reflection import cast_reflection
from canvas.light.shadow.casting import cast_shadows
from canvas.light.shadow.model import ShadowModel, predict_shadow
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha


def cast_on_scene(model: ShadowModel | None, image: Pixels, scene: Scene, shadow: float, reflection: float) -> Pixels:
    """Return an image with the shadows of its products, and over them their reflections, on what was generated; every
    product stays as it is.

    Args:
        model: The shadow network; None only for a shadow of 0.
        image: [H, W, 3] with the products on it.
        scene: What was given of it.
        shadow: Strength of the shadows, 0 to 1.
        reflection: Likewise.
    """
    product = scene.product
    if shadow > 0:
        assert model is not None
        shadows = [
            predict_shadow(model, product.pixels, alpha, image).scale(shadow) for alpha in _iterate_standing(scene)
        ]
        image = cast_shadows(image, shadows, product.pixels, product.alpha)
    if reflection > 0:
        for alpha in _iterate_standing(scene):
            image = cast_reflection(image, product.pixels, alpha, product.alpha, reflection)
    return image


def _iterate_standing(scene: Scene) -> Iterator[Alpha]:
    """Yield the alpha of each product that stands on the floor, not that of one that floats."""
    for number, alpha in enumerate(_split_alpha(scene)):
        if not (scene.floating and scene.floating[number]):
            yield alpha


def _split_alpha(scene: Scene) -> Iterator[Alpha]:
    """Yield the alpha of each product, within its box and without the cores of others; canvases may be large."""
    if scene.owners is None:
        yield scene.product.alpha
        return
    for number, box in enumerate(scene.boxes):
        alpha, owners = np.zeros_like(scene.product.alpha), scene.owners[box.region]
        is_own = (owners == number) | (owners == NO_PRODUCT)
        alpha[box.region] = np.where(is_own, scene.product.alpha[box.region], 0)
        yield alpha
