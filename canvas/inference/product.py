"""The product as a user hands it in, pixels and how much of each is product, and in the model's frame."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from canvas.masks.composite import ALPHA_EDGE, ALPHA_FLOOR
from canvas.masks.repair import clean_colours, mend_matte
from canvas.pins.images import STRIP_PIXELS, Pixels, bytes_to_tensor, image_to_pixels, iterate_strips
from canvas.pins.mask_files import has_two_values
from canvas.pins.masks import Alpha, Mask

V = TypeVar("V", np.uint8, np.float32)

FEATHER_SHARE = 1 / 400  # of the shorter side: depth of the band inside a hard mask

PHOTOGRAPH = "photograph"
"""Origin of a product that is a whole photograph."""

UNUSABLE_MASKS = {  # by origin: nothing is product, everything is
    "alpha channel": ("the alpha channel is empty", "the alpha channel covers the image"),
    "mask": ("the mask is empty", "the mask covers the image"),
    "segmenter": ("the segmenter found no product", "the segmenter took the whole image for product"),
}


@dataclass(frozen=True, slots=True)
class Product:
    """An image and its alpha: 1 on the core, whose pixels come back as they are."""

    pixels: Pixels
    alpha: Alpha
    origin: str  # "alpha channel" | "mask" | "segmenter" | PHOTOGRAPH

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.alpha.shape[0], self.alpha.shape[1]

    @property
    def core(self) -> Mask:
        """Where output equals input, byte for byte."""
        return self.alpha == 1

    @property
    def band(self) -> Mask:
        """Where product and background are blended."""
        return (self.alpha > ALPHA_FLOOR) & (self.alpha < 1)


def build_product(
    image: Image.Image, mask: Image.Image | None = None, segment: Callable[[Image.Image], Alpha] | None = None
) -> Product:
    """Read the product from an RGBA cut-out, from RGB with a mask, or from RGB alone through `segment`.

    Args:
        image: The product image.
        mask: White = product, or the larger one where there are but two values; where it has one colour and its
            transparency varies: opaque = product.
        segment: Image -> alpha, where there is neither alpha nor mask.

    Raises:
        ValueError: In one sentence, for what cannot be used.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"the product must be a PIL image, not {type(image).__name__}")
    check_product_input(image, mask)
    pixels = image_to_pixels(image)
    if mask is not None:
        values = _read_mask(mask)
        hard = has_two_values(values)
        product = Product(pixels, feather_mask(values == values.max()) if hard else _scale_to_one(values), "mask")
    elif (alpha := _get_varying_alpha(image)) is not None:
        product = Product(pixels, _scale_to_one(np.asarray(alpha)), "alpha channel")
    elif segment is not None:
        product = Product(pixels, feather_mask(segment(image) >= 0.5), "segmenter")
    else:
        raise ValueError("the product image has neither alpha channel nor mask, and this model has no segmenter")
    _check_product(product)
    return product


def check_product_input(image: Image.Image, mask: Image.Image | None) -> None:
    """Raise ValueError for an image and a mask that do not go together, or of which nothing or all is product.

    What only a segmenter can tell passes. Raises as `build_product` does, at little cost.
    """
    alpha = _get_varying_alpha(image)
    if mask is None and alpha is None:
        return
    if mask is None:
        _check_share(_scale_to_one(np.asarray(alpha)) >= 0.5, "alpha channel")
        return
    if alpha is not None:
        raise ValueError("the product image has an alpha channel and a mask was given too: give one of them")
    if mask.size != image.size:
        raise ValueError(
            f"the mask is {mask.width} x {mask.height}, the product image {image.width} x {image.height}: "
            "they must be of one size"
        )
    values = _read_mask(mask)
    _check_share(values == values.max() if has_two_values(values) else _scale_to_one(values) >= 0.5, "mask")


def needs_segmenter(image: Image.Image, mask: Image.Image | None) -> bool:
    """Tell whether neither transparency nor a mask says where the product is."""
    return mask is None and _get_varying_alpha(image) is None


def derive_seed(seed: int, product: Product) -> int:
    """Return a seed of the product's own, the same for the same `seed` and product; what is hidden does not matter."""
    digest = hashlib.blake2b(digest_size=8)
    for rows in iterate_strips(*product.size):
        digest.update(product.alpha[rows].tobytes())
    for rows in iterate_strips(*product.size):
        digest.update(product.pixels[rows][product.alpha[rows] > 0].tobytes())
    return (seed + int.from_bytes(digest.digest(), "big")) % 2**63


def build_masked_product(image: Image.Image, mask: Mask) -> Product:
    """Read the product of a pin: RGB and its mask (H, W), True on the product. Raises as `build_product` does."""
    return build_product(image, Image.fromarray((mask * 255).astype(np.uint8)))


def _select_mask_channel(mask: Image.Image) -> Image.Image:
    """Return its brightness; its alpha where that alone varies."""
    grey, alpha = mask.convert("L"), _get_alpha(mask)
    if alpha is not None and len(set(grey.getextrema())) == 1 < len(set(alpha.getextrema())):
        return alpha
    return grey


def _get_alpha(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel; None where the image has no transparency."""
    if not image.has_transparency_data:
        return None
    return (image if image.mode == "RGBA" else image.convert("RGBA")).getchannel("A")


def _get_varying_alpha(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel; None where the whole image is opaque."""
    alpha = _get_alpha(image)
    return None if alpha is None or alpha.getextrema() == (255, 255) else alpha


def _read_mask(mask: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(_select_mask_channel(mask))


def _scale_to_one(values: NDArray[np.uint8]) -> Alpha:
    """Return 0..255 as 0..1; where there are but 0 and 1, they are that already."""
    scaled = values.astype(np.float32)
    if values.max() > 1:
        scaled /= np.float32(255)
    return scaled


def _check_product(product: Product) -> None:
    _check_share(product.alpha >= 0.5, product.origin)
    if not product.core.any():
        largest = round(255 * float(product.alpha.max()))
        raise ValueError(
            f"the {product.origin} has no fully opaque pixel, the largest is {largest} of 255: no pixel would be kept "
            "as it is, raise the product's to 255 or give RGB with a hard mask"
        )


def _check_share(inside: Mask, origin: str) -> None:
    empty, full = UNUSABLE_MASKS[origin]
    if not inside.any():
        raise ValueError(f"{empty}: nothing to keep")
    if inside.all():
        raise ValueError(f"{full}: nothing to generate")


def feather_mask(mask: Mask) -> Alpha:
    """Return the alpha of a hard mask (H, W): 1 on its core, falling to its edge over FEATHER_SHARE of the shorter
    side, 0 outside.

    Outside lies the old background, so the band is inside. A mask too thin for a core stays hard.
    """
    depth = max(1, round(min(mask.shape) * FEATHER_SHARE))
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")  # a product cut off by the image's edge has no band there
    inwards = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    alpha = inwards / np.float32(depth + 1)
    np.clip(alpha, 0, 1, out=alpha)
    return alpha if (alpha == 1).any() else mask.astype(np.float32)


def mend_product(product: Product, mattes: Sequence[Alpha]) -> Product:
    """Return the product with its edge mended (canvas.masks.repair), for mode soft.

    A hard mask is mended where it is uncertain, and the band's colours are freed of the old background. Of a soft mask
    the alpha is believed, and the colours alone are freed. A cut-out's alpha and colours are its own.

    Args:
        product: As it was handed in.
        mattes: What a segmenter sees of its image, if there is one.
    """
    if product.origin == "alpha channel":
        return product
    mask, alpha = product.alpha > 0, product.alpha
    if np.array_equal(feather_mask(mask), alpha):
        mended = mend_matte(product.pixels, mask, mattes)
        if mended is None:
            return product
        alpha = mended
    return replace(product, pixels=clean_colours(product.pixels, alpha), alpha=alpha)


def composite_pixels(background: Pixels, product: Product, shift: NDArray[np.float32] | None = None) -> Pixels:
    """Put the product over a background of its size, as `composite_product`; `shift` (H, W) moves the band's blend."""
    out = background.copy()
    lay_product(out, product, None if shift is None else select_band(product, shift))
    return out


def select_band(product: Product, shift: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values of `shift` (H, W) in the product's band, row by row: of a large image a small part."""
    parts = [shift[rows][_find_band(product.alpha[rows])] for rows in iterate_strips(*product.size)]
    return np.concatenate(parts)


def lay_product(pixels: Pixels, product: Product, band_shift: NDArray[np.float32] | None) -> None:
    """Put the product over a background of its size, in place; `band_shift` as `select_band` returns it."""
    start = 0
    for rows in iterate_strips(*product.size):
        out, original, alpha = pixels[rows], product.pixels[rows], product.alpha[rows]
        core, band = alpha == 1, _find_band(alpha)
        np.copyto(out, original, where=core[..., None])
        weight = alpha[band]
        if band_shift is not None:
            inner = np.clip(weight, ALPHA_EDGE, 1 - ALPHA_EDGE)
            weight = 1 / (1 + np.exp(-(np.log(inner / (1 - inner)) + band_shift[start : start + len(weight)])))
            start += len(weight)
        weight = weight[:, None]
        mixed = weight * original[band] + (1 - weight) * out[band]
        out[band] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _find_band(alpha: Alpha) -> Mask:
    return (alpha > ALPHA_FLOOR) & (alpha != 1)


@dataclass(frozen=True, slots=True)
class Frame:
    """The model's image, and in it the rectangle that is the product image; pixels."""

    height: int
    width: int
    top: int
    left: int
    inner_height: int
    inner_width: int

    def scale(self, factor: int) -> Frame:
        """Return the frame `factor` times as large; its pixels lie exactly within those of this one."""
        return Frame(*(factor * length for length in astuple(self)))

    def insert_product(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `values` (H, W, ...) of the product image, resized into the frame; 0 around."""
        framed = np.zeros((self.height, self.width, *values.shape[2:]), np.float32)
        inner = _resize(values, self.inner_height, self.inner_width, cv2.INTER_LINEAR)
        framed[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = inner
        return framed

    def extract_product(self, values: NDArray[V], height: int, width: int) -> NDArray[V]:
        """Return the product image's part of `values` (h, w, ...), at its own size."""
        inner = values[self.top : self.top + self.inner_height, self.left : self.left + self.inner_width]
        return _resize(inner, height, width, cv2.INTER_CUBIC)


def _resize(values: NDArray[V], height: int, width: int, enlarging: int) -> NDArray[V]:
    """Average `values` down, or interpolate them up by `enlarging`."""
    shrinks = height * width < values.shape[0] * values.shape[1]
    resized = cv2.resize(
        np.ascontiguousarray(values), (width, height), interpolation=cv2.INTER_AREA if shrinks else enlarging
    )
    return resized.astype(values.dtype, copy=False)


def compute_frame(height: int, width: int, *, side: int, multiple: int, max_aspect: float) -> Frame:
    """Return a frame of about side x side pixels, both sides multiples of `multiple`, in the aspect of height x width.

    Args:
        height: Of the product image, pixels.
        width: Likewise.
        side: Of the square frame that the model works in; a multiple of `multiple`.
        multiple: Pixels of the autoencoder's cell, times the denoiser's patch.
        max_aspect: Longest side over shortest that the model has seen. A longer image lies in the middle of a frame of
            that aspect, and what is generated around it is cut off again. 1: square frames only.
    """
    assert side % multiple == 0, f"a model of {side} pixels works in steps of {multiple}"
    aspect = min(max(width / height, 1 / max_aspect), max_aspect)
    tall = max(multiple, round(side / math.sqrt(aspect) / multiple) * multiple)
    wide = max(multiple, round(side * math.sqrt(aspect) / multiple) * multiple)
    inner_tall, inner_wide = tall, wide
    if width / height > max_aspect:
        inner_tall = max(1, round(tall * max_aspect * height / width))
    elif height / width > max_aspect:
        inner_wide = max(1, round(wide * max_aspect * width / height))
    return Frame(tall, wide, (tall - inner_tall) // 2, (wide - inner_wide) // 2, inner_tall, inner_wide)


@dataclass(frozen=True, slots=True)
class FramedProduct:
    """A product in the model's frame, as tensors with batch 1: pixels in [-1, 1], mask and alpha in 0..1."""

    frame: Frame
    pixels: torch.Tensor
    mask: torch.Tensor
    alpha: torch.Tensor

    def to(self, device: torch.device | str) -> FramedProduct:
        """Return it on `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("pixels", "mask", "alpha")})


def frame_product(product: Product, frame: Frame) -> FramedProduct:
    """Scale the product into `frame`, on the CPU.

    Colours are averaged by alpha, so what lies outside of the product does not bleed into its edge. Of a product so
    small or soft that no pixel is half product there, the most opaque pixels stand for it.
    """
    alpha = frame.insert_product(product.alpha)
    pixels = _insert_colours(product, frame) / np.maximum(alpha, 1e-6)[..., None]
    mask = alpha >= min(0.5, float(alpha.max()))
    return FramedProduct(
        frame,
        bytes_to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]).clamp(-1, 1),
        torch.from_numpy(mask)[None, None].float(),
        torch.from_numpy(alpha)[None, None],
    )


def frame_product_bytes(product: Product, frame: Frame) -> tuple[Pixels, Pixels]:
    """Scale the product into a large `frame`: colours (H, W, 3), averaged by alpha, and alpha (H, W), 0 to 255, in a
    third of the memory of `frame_product`'s tensors."""
    alpha = frame.insert_product(product.alpha)
    alpha[alpha <= ALPHA_FLOOR] = 0
    colours = np.empty((*alpha.shape, 3), np.uint8)
    for place in range(3):
        plane = frame.insert_product(product.pixels[..., place] * product.alpha)
        plane /= np.maximum(alpha, 1e-6)
        colours[..., place] = np.clip(np.rint(plane, out=plane), 0, 255)
    return colours, np.rint(alpha * 255).astype(np.uint8)


def _insert_colours(product: Product, frame: Frame) -> NDArray[np.float32]:
    """Return the colours times alpha in `frame`; of a large image one by one, which takes a third of the memory."""
    if product.alpha.size <= STRIP_PIXELS:
        return frame.insert_product(product.pixels * product.alpha[..., None])
    return np.stack([frame.insert_product(product.pixels[..., place] * product.alpha) for place in range(3)], -1)
