"""Mode soft of a layout: each product in the light of the scene round it, and a certificate of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from canvas.inference.close_up import CloseUpBackground
from canvas.inference.conditioning import Background, check_finite
from canvas.inference.product import Product
from canvas.inference.scene.build import Scene
from canvas.inference.scene.shadows import cast_on_scene
from canvas.layout.formats import Rectangle
from canvas.layout.spec import Layout
from canvas.light.certificate import Certificate, digest_image
from canvas.light.gain import GainGrid, apply_gain
from canvas.light.laws import LIMITS, Check, check_grid, check_pixels, limit_clipping, make_lawful
from canvas.light.model import LightModel, predict_gain
from canvas.light.scene import SceneCertificate
from canvas.pins.frames import Size
from canvas.pins.images import Pixels
from canvas.pins.masks import Alpha, Mask, compute_box

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

SURROUNDINGS = 2.0
"""Sides of the part of the canvas whose light a product takes on, over those of its box."""


def relight_scene(
    pipeline: CanvasPipeline,
    background: Background | CloseUpBackground,
    plain_image: Pixels,
    scene: Scene,
    originals: Sequence[Image.Image],
    layout: Layout,
    shadow: float,
    reflection: float,
) -> tuple[Pixels, SceneCertificate]:
    """Return the image with every product in its light, and the certificate, which holds no shadows.

    Args:
        pipeline: Whose networks predict the light on a product, and its shadow.
        background: As it is pasted.
        plain_image: The image with the products as they are.
        scene: The products.
        originals: Their images as they were handed in.
        layout: Where they stand.
        shadow: Strength of their shadows, 0 to 1.
        reflection: Likewise.
    """
    assert scene.owners is not None
    assert scene.parts is not None
    lit, grids = scene.product.pixels.copy(), []
    for number in range(len(originals)):
        core, part = scene.owners == number, scene.parts == number
        grid = _predict_grid(pipeline.light, scene.product, plain_image, core, part)
        lit_pixels = apply_gain(scene.product.pixels, grid, compute_box(core), part)
        lit[part] = lit_pixels[part]
        grids.append(grid)
    lit_scene = replace(scene, product=replace(scene.product, pixels=lit))
    image = cast_on_scene(pipeline.shadow, background.composite(lit_scene.product), lit_scene, shadow, reflection)
    return image, _certify(image, scene, originals, layout, grids)


def check_product(image: Pixels, scene: Scene, number: int, grid: GainGrid) -> tuple[Check, ...]:
    """Measure every law on what is seen of the product of that number."""
    assert scene.owners is not None
    core = scene.owners == number
    return (*check_grid(grid), *check_pixels(image, scene.product.pixels, core, grid, compute_box(core)))


def _predict_grid(light: LightModel, product: Product, plain_image: Pixels, core: Mask, part: Mask) -> GainGrid:
    """Return the lawful gain of one product, of the part of the canvas round it: what the network learnt from are
    images of one product, which takes much of them."""
    region = _widen_box(core).region
    alpha: Alpha = np.where(part, product.alpha, np.float32(0))
    alpha[part & (product.alpha == 1) & ~core] = np.nextafter(np.float32(1), np.float32(0))  # where products are mixed
    predicted = predict_gain(light, product.pixels[region], alpha[region], plain_image[region])
    check_finite(torch.from_numpy(predicted), "the light network")
    return limit_clipping(make_lawful(predicted), product.pixels, core, compute_box(core))


def _widen_box(core: Mask) -> Rectangle:
    """Return the surroundings of a core on its canvas."""
    left, top, right, bottom = compute_box(core)
    side = SURROUNDINGS * max(right - left, bottom - top)
    size: Size = core.shape[0], core.shape[1]
    first, height = _place_line((top + bottom) / 2, side, size[0])
    start, width = _place_line((left + right) / 2, side, size[1])
    return Rectangle(first, start, height, width)


def _place_line(middle: float, length: float, whole: int) -> tuple[int, int]:
    """Return where a line of that middle begins, and its length, moved and cut to fit into the whole."""
    length = min(whole, round(length))
    return min(max(0, round(middle - length / 2)), whole - int(length)), int(length)


def _certify(
    image: Pixels, scene: Scene, originals: Sequence[Image.Image], layout: Layout, grids: Sequence[GainGrid]
) -> SceneCertificate:
    output_image = Image.fromarray(image)
    digest, certificates = digest_image(output_image), []
    for number, (original, grid) in enumerate(zip(originals, grids, strict=True)):
        checks = check_product(image, scene, number, grid)
        broken = [check.describe() for check in checks if not check.holds]
        assert not broken, f"a lawful gain breaks a law: {broken[0]}"
        certificates.append(
            Certificate(
                image_digest=digest,
                original_digest=digest_image(original),
                core_source=scene.origins[number],
                core=scene.segmented[number],
                band=None,  # edges of a layout's products are not mended
                grid=grid,
                left=scene.boxes[number].left,
                top=scene.boxes[number].top,
                limits=LIMITS,
                checks=checks,
            )
        )
    return SceneCertificate(layout.words, tuple(certificates))
