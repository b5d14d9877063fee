"""Images as bytes, pixels and tensors: untrusted bytes in, within limits; deterministic bytes out."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from canvas.pins import tables

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
"""RGB [h, w, 3], or one channel [h, w]."""

FORMATS = ("JPEG", "PNG", "WEBP")
WHITE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What an untrusted image may cost: encoded bytes, and decoded pixels (width * height)."""

    max_bytes: int
    max_pixels: int


DEFAULT_LIMITS = ImageLimits(max_bytes=32 * 1024**2, max_pixels=64_000_000)


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode `data` to 8-bit sRGB, mode RGB, or RGBA where it has transparency; upright, no metadata.

    Raises:
        ValueError: In one sentence, when it is no JPEG, PNG or WebP, is broken, or exceeds `limits`; the header is
            checked before a pixel is decoded.
    """
    image = _open_image(data, limits)
    try:
        image.load()
        image = _convert_to_srgb(ImageOps.exif_transpose(image))
    except Exception as error:  # codecs raise anything from SyntaxError to struct.error on hostile bytes
        raise ValueError(f"broken {image.format or 'image'}: {error}") from error
    image.info = {}
    return image


def read_images(table: Path, pin_ids: Collection[str], column: str = "image") -> dict[str, Image.Image]:
    """Return the RGB images of `pin_ids` by pin, on white, in the order of the table; pins without one are left out."""
    encoded = tables.read_column(table, column, set(pin_ids))
    return {pin: composite_on_white(decode_image(data)) for pin, data in encoded.items() if data}


def normalize_image_bytes(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[bytes, int, int]:
    """Return bytes, width and height of an image so that any decoder shows what `decode_image` shows.

    The bytes are those delivered unless they need EXIF rotation, a colour conversion to sRGB or the choice of
    a frame; then they are encoded anew (JPEG, or PNG where there is transparency). Raises as `decode_image` does.
    """
    image = decode_image(data, limits)
    with _open_image(data, limits) as delivered:
        upright = delivered.getexif().get(ExifTags.Base.Orientation, 1) == 1
        plain = delivered.mode in ("L", "LA", "P", "RGB", "RGBA") and getattr(delivered, "n_frames", 1) == 1
        if not (upright and plain and _is_srgb(delivered.info.get("icc_profile"))):
            data = encode_png(image) if image.mode == "RGBA" else encode_jpeg(image, quality=95)
    return data, image.width, image.height


def read_image_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header (before EXIF rotation), without limits; (0, 0) if there is none."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # as in `decode_image`
        return 0, 0


def encode_png(image: Image.Image) -> bytes:
    """Encode as PNG without metadata; the same pixels give the same bytes."""
    return _encode_image(image, "PNG", compress_level=4)


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """Encode RGB or L as JPEG without metadata or chroma subsampling (which would bleed product edges)."""
    return _encode_image(image, "JPEG", quality=quality, subsampling=0)


def draw_contact_sheet(images: Sequence[Image.Image], labels: Sequence[str], columns: int, cell: int) -> Image.Image:
    """Draw images fitted into `cell` x `cell` squares in reading order, each with its label below."""
    assert len(images) == len(labels), (len(images), len(labels))
    line, gap = 16, 6
    rows = max(1, math.ceil(len(images) / columns))
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + line + gap) + gap), WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = gap + index % columns * (cell + gap)
        top = gap + index // columns * (cell + line + gap)
        fitted = ImageOps.contain(composite_on_white(image), (cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        draw.text((left, top + cell + 1), _truncate_label(label, font, cell), fill=(60, 60, 60), font=font)
    return sheet


def composite_on_white(image: Image.Image) -> Image.Image:
    """Return the image as RGB, with white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")


def bytes_to_tensor(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in [-1, 1], the range of the networks."""
    return images.float() / 127.5 - 1


def tensor_to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Return images as uint8, clamped to [-1, 1] first; the inverse of `bytes_to_tensor`."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()


def _open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    if len(data) > limits.max_bytes:
        raise ValueError(f"{len(data)} bytes exceed the limit of {limits.max_bytes}")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(f"more pixels than the limit of {limits.max_pixels}") from None
    except UnidentifiedImageError:
        raise ValueError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # as in `decode_image`
        raise ValueError(f"broken image header: {error}") from error
    if image.width * image.height > limits.max_pixels:
        raise ValueError(f"{image.width} x {image.height} pixels exceed the limit of {limits.max_pixels}")
    return image


def _convert_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        image = image.convert(mode)
    if profile and not _is_srgb(profile):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # an unusable profile is ignored, as browsers do
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            output = mode if image.mode == mode else "RGB"
            image = ImageCms.profileToProfile(image, source, target, outputMode=output) or image
    return image.convert(mode)


def _is_srgb(profile: bytes | None) -> bool:
    """Return whether pixels under this colour profile are sRGB already; no profile means sRGB."""
    if not profile:
        return True
    try:
        return "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return False


def _encode_image(image: Image.Image, kind: str, **options: int) -> bytes:
    bare = image.copy()
    bare.info = {}  # Pillow would write some of it
    buffer = io.BytesIO()
    bare.save(buffer, kind, **options)
    return buffer.getvalue()


def _truncate_label(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"
