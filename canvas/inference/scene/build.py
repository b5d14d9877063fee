"""Images and a layout to the one product that the pipeline works on: N mattes, one mask, one denoising."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.inference.product import (
    PHOTOGRAPH,
    Product,
    build_product,
    check_product_input,
    mend_product,
    needs_segmenter,
)
from canvas.layout.compose import Cutout, compose_products
from canvas.layout.formats import Rectangle
from canvas.layout.spec import Layout, check_product_count
from canvas.pins.images import image_to_pixels
from canvas.pins.masks import Alpha, Mask

Images = Image.Image | list[Image.Image] | tuple[Image.Image, ...]
"""One, or several in their order."""
Masks = Images | list[Image.Image | None] | None
"""One each; None: the image's own alpha channel, or a segmenter."""

SEGMENTER = "segmenter"
"""Origin of a product whose mask nobody handed in."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is given of an image: the union of its products, and which pixels are whose."""

    product: Product
    boxes: list[Rectangle] = field(default_factory=list)  # of each product on the canvas; without a layout none
    factors: list[float] = field(default_factory=list)  # by which each was resized; 1: not at all
    owners: NDArray[np.int8] | None = None  # (H, W): number of the product whose core this is; -1: of none
    parts: NDArray[np.int8] | None = None  # (H, W): likewise, its edge, too
    cut: Product | None = None  # the product as it was handed in, where its edge was mended
    floating: tuple[bool, ...] = ()  # of each product, whether it floats, without shadow and reflection; (): none does
    origins: list[str] = field(default_factory=list)  # of each, as Product has it
    segmented: list[Mask | None] = field(default_factory=list)  # of what a segmenter cut out: the mask in its own image


def build_scene(
    images: Images,
    masks: Masks = None,
    layout: Layout | None = None,
    segment: Callable[[Image.Image], Alpha] | None = None,
) -> Scene:
    """Read each product as `build_product` does, and put all on the layout's canvas; without one: the one image.

    Raises:
        ValueError: In one sentence, for what cannot be used.
    """
    given = list_images(images)
    check_product_count(len(given))
    pairs = pair_masks(given, masks)
    if layout is None:
        if len(given) > 1:
            raise ValueError(f"{len(given)} products were given: say with a layout how they stand together")
        return Scene(build_product(*pairs[0], segment))
    if layout.keeps_photograph and len(given) == 1:
        cutouts, origins = [_read_photograph(*pairs[0])], [PHOTOGRAPH]
        segmented: list[Mask | None] = [None]
    else:
        products = [_read_product(number, *pair, segment) for number, pair in enumerate(pairs)]
        cutouts = [Cutout(product.pixels, product.alpha) for product in products]
        origins = [product.origin for product in products]
        segmented = [product.alpha > 0 if product.origin == SEGMENTER else None for product in products]
    composed = compose_products(cutouts, layout)
    return Scene(
        Product(composed.pixels, composed.alpha, " and ".join(dict.fromkeys(origins))),
        composed.boxes,
        composed.factors,
        composed.owners,
        floating=layout.floating,
        parts=composed.parts,
        origins=origins,
        segmented=segmented,
    )


def mend_scene(scene: Scene, segment_views: Callable[[Image.Image], list[Alpha]] | None) -> Scene:
    """Return the scene with the edge of its product mended, as mode soft has it.

    Args:
        scene: Of one product in its own image.
        segment_views: Image -> mattes of several views of it, where there is a segmenter.
    """
    product = scene.product
    mattes: list[Alpha] = []
    if segment_views is not None and product.origin != "alpha channel":
        mattes = segment_views(Image.fromarray(product.pixels))
    return replace(scene, product=mend_product(product, mattes), cut=product)


def check_scene_input(images: Images, masks: Masks, layout: Layout | None) -> None:
    """Raise as `build_scene` does, before a model is loaded: what only a segmenter can tell passes."""
    if layout is not None and not asks_for_segmenter(images, masks, layout):
        build_scene(images, masks, layout)
        return
    for image, mask in pair_masks(list_images(images), masks):
        check_product_input(image, mask)


def asks_for_segmenter(images: Images, masks: Masks, layout: Layout | None) -> bool:
    """Tell whether a product among `images` must be found by a segmenter."""
    if layout is not None and layout.keeps_photograph:
        return False
    return any(needs_segmenter(image, mask) for image, mask in pair_masks(list_images(images), masks))


def pair_masks(images: Sequence[Image.Image], masks: Masks) -> list[tuple[Image.Image, Image.Image | None]]:
    """Return each image with its mask; ValueError where they are not as many."""
    mask_list: Sequence[Image.Image | None] = [None] * len(images)
    if masks is not None:
        mask_list = [masks] if isinstance(masks, Image.Image) else list(masks)
    if len(mask_list) != len(images):
        raise ValueError(
            f"{len(mask_list)} masks were given for {len(images)} products: give one each, - for a cut-out, or none"
        )
    return list(zip(images, mask_list, strict=True))


def list_images(images: Images) -> list[Image.Image]:
    """Return images as a list, one image as a list of one."""
    return list(images) if isinstance(images, list | tuple) else [images]


def _read_product(
    number: int, image: Image.Image, mask: Image.Image | None, segment: Callable[[Image.Image], Alpha] | None
) -> Product:
    try:
        return build_product(image, mask, segment)
    except ValueError as error:
        raise ValueError(str(error) if number == 0 else f"product {number + 1}: {error}") from None


def _read_photograph(image: Image.Image, mask: Image.Image | None) -> Cutout:
    """Return a photograph and its product, of which the mask alone knows; ValueError for a cut-out."""
    if mask is not None:
        product = build_product(image, mask)
        return Cutout(product.pixels, product.alpha)
    if not needs_segmenter(image, None):
        raise ValueError("a photograph is kept with its background, but this image is cut out: choose another place")
    return Cutout(image_to_pixels(image), np.zeros((image.height, image.width), np.float32))
