"""Images as bytes, pixels and tensors: untrusted bytes in, within limits; deterministic bytes out."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from canvas.pins import tables
from canvas.pins.containers.container import Container
from canvas.pins.containers.jpeg import fill_scans
from canvas.pins.containers.png import check_png_rows
from canvas.pins.containers.split import split_container
from canvas.pins.mask_files import tidy_mask
from canvas.pins.profiles import apply_converter, build_converter, build_gamma_table

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]
"""RGB [h, w, 3], or one channel [h, w]."""

WHITE = (255, 255, 255)
STRIP_PIXELS = 4_000_000
MAX_JPEG_SIDE = 65_535
"""Pixels, the longest that the format knows."""
PLUGINS = {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLimits:
    """What an untrusted image may cost: encoded bytes, and decoded pixels (width * height)."""

    max_bytes: int
    max_pixels: int


DEFAULT_LIMITS = ImageLimits(max_bytes=32 * 1024**2, max_pixels=64_000_000)
"""Limits of images that a user hands to the command line or a model server without naming limits. Images in our own
tables have passed theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage:
    """An image as everything here works with it, and what was done on the way."""

    image: Image.Image  # RGB, or RGBA where it has transparency; 8-bit sRGB, upright, no metadata
    stored: bytes  # what it was decoded from, without side chunks; of the first frame
    conversions: tuple[str, ...]  # what changed pixel values, as "CMYK"
    rewritten: bool  # whether `stored`, by itself, shows another image: it is turned, or one of its colours is clear
    notes: tuple[str, ...]  # what else a person should hear, a sentence each


def read_image(data: bytes, limits: ImageLimits | None = None, *, is_mask: bool = False) -> DecodedImage:
    """Decode an image by its pixels; side chunks count where they make sense, and refuse nothing.

    Args:
        data: JPEG, PNG or WebP; of an animation the first frame is taken.
        limits: What it may cost; the header is checked before a pixel is decoded. None: bytes that passed before.
        is_mask: Its values are no colours: no profile is applied, and of 16-bit grey up to 255 nothing is cut off.

    Raises:
        ValueError: In one sentence, when it is none of these, pixels are missing or broken, or it exceeds `limits`.
    """
    if limits is not None and len(data) > limits.max_bytes:
        raise ValueError(f"{len(data)} bytes exceed the limit of {limits.max_bytes}")
    container = split_container(data)
    if limits is not None and container.width * container.height > limits.max_pixels:
        raise ValueError(f"{container.width} x {container.height} pixels exceed the limit of {limits.max_pixels}")
    _lift_bomb_limit(container.width * container.height)
    try:
        image = _decode_pixels(container, passed=limits is None)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips instead of scaling
            image = _scale_deep_grey(image, is_mask)
        image, conversions, notes = _convert_to_srgb(image, container, has_colours=not is_mask)
        if container.orientation != 1:
            image = image.transpose(TURNS[container.orientation])
    except MemoryError:
        raise ValueError(f"{container.width} x {container.height} pixels do not fit into memory") from None
    except Exception as error:  # codecs raise anything from SyntaxError to struct.error on hostile bytes
        raise ValueError(f"broken {container.format}: {' '.join(str(error).split())[:200]}") from error
    if isinstance(image, ImageFile):
        image = image.copy()  # pixels alone: a file's object holds its bytes, WebP's its decoder, too
    image.info = {}
    if is_mask:
        image, mask_notes = tidy_mask(image)
        notes += mask_notes
    if container.frames > 1:
        notes.append(f"it is an animation of {container.frames} frames, of which the first is used")
    if not container.ended:
        notes.append("its end is missing, its pixels are complete")
    return DecodedImage(
        image=image,
        stored=container.data,
        conversions=tuple(conversions),
        rewritten=bool(conversions) or container.orientation != 1 or container.colour_key is not None,
        notes=tuple(notes),
    )


def decode_image(data: bytes, limits: ImageLimits | None = None) -> Image.Image:
    """Decode `data` to 8-bit sRGB, mode RGB, or RGBA where it has transparency; as `read_image` does."""
    return read_image(data, limits).image


def read_images(table: Path, pin_ids: Collection[str], column: str = "image") -> dict[str, Image.Image]:
    """Return the RGB images of `pin_ids` by pin, on white, in the order of the table; pins without one are left out."""
    encoded = tables.read_column(table, column, set(pin_ids))
    return {pin: composite_on_white(decode_image(data)) for pin, data in encoded.items() if data}


@dataclass(frozen=True, slots=True)
class NormalizedImage:
    """An image whose bytes any decoder shows alike."""

    data: bytes
    width: int
    height: int
    notes: tuple[str, ...]  # as of DecodedImage


def normalize_image(data: bytes, limits: ImageLimits | None = None) -> NormalizedImage:
    """Return an image so that any decoder shows what `decode_image` shows.

    Its coded pixels are those delivered, without side chunks, unless they need EXIF rotation, a conversion to 8-bit
    sRGB or an alpha channel of their own; then they are encoded anew: as JPEG, or PNG where there is transparency or a
    side too long for JPEG. Raises as `read_image` does.
    """
    decoded = read_image(data, limits)
    image, stored = decoded.image, decoded.stored
    if decoded.rewritten:
        as_png = image.mode == "RGBA" or max(image.size) > MAX_JPEG_SIDE
        stored = encode_png(image) if as_png else encode_jpeg(image, quality=95)
    return NormalizedImage(stored, image.width, image.height, decoded.notes)


def read_image_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the header (before EXIF rotation), without limits; (0, 0) if there is none."""
    for plugin in PLUGINS.values():
        with suppress(Exception), plugin(io.BytesIO(data)) as image:  # as in `read_image`
            return image.width, image.height
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
        fitted = _fit_into(composite_on_white(image), cell)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        draw.text((left, top + cell + 1), _truncate_label(label, font, cell), fill=(60, 60, 60), font=font)
    return sheet


def stack_sheets(sheets: Sequence[Image.Image]) -> Image.Image:
    """Return sheets one below the other, on white."""
    stacked = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), WHITE)
    for number, sheet in enumerate(sheets):
        stacked.paste(sheet, (0, sum(above.height for above in sheets[:number])))
    return stacked


def composite_on_white(image: Image.Image) -> Image.Image:
    """Return the image as RGB, with white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")


def iterate_strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of an image in strips of about STRIP_PIXELS, for work by pixel in bounded memory."""
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


def image_to_pixels(image: Image.Image) -> Pixels:
    """Return a copy of the pixels as RGB, alpha left out."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows in iterate_strips(image.height, image.width):
        pixels[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert("RGB"))
    return pixels


def bytes_to_tensor(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in [-1, 1], the range of the networks."""
    return images.float() / 127.5 - 1


def tensor_to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Return images as uint8, clamped to [-1, 1] first; the inverse of `bytes_to_tensor`."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()


def _decode_pixels(container: Container, *, passed: bool) -> Image.Image:
    """Decode what is stored; ValueError where pixels are missing, which codecs fill with grey or black.

    `passed`: It was checked before: only a JPEG that looks cut off is decoded twice.
    """
    if container.format == "PNG":
        check_png_rows(container.data)
        if container.colour_key is not None:
            return _decode_keyed_png(container, container.colour_key)
    image = _open_pixels(container)
    if container.format == "JPEG":
        corner = image.getpixel((image.width - 1, image.height - 1))
        grey = {127, 128}.issuperset(corner if isinstance(corner, tuple) else [corner])  # what libjpeg fills with
        if (grey or not (passed and container.ended)) and not _is_complete(container, image):
            raise ValueError("its coded data ends before its pixels do")
    return image


def _open_pixels(container: Container, data: bytes | None = None) -> Image.Image:
    """Decode with Pillow, by the format's own class: `Image.open` has a limit of pixels and an opinion of its own."""
    image = PLUGINS[container.format](io.BytesIO(container.data if data is None else data))
    if image.size != (container.width, container.height):
        raise ValueError(f"it is {image.width} x {image.height}, not {container.width} x {container.height} pixels")
    image.load()
    return image


def _lift_bomb_limit(pixels: int) -> None:
    """Let Pillow handle an image that has passed our own limit: `crop` and `open` would refuse it by theirs."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _is_complete(container: Container, image: Image.Image) -> bool:
    """Return whether the coded data of a JPEG gives every pixel of `image`: more data behind it changes none."""
    filled = _open_pixels(container, fill_scans(container.data, b"\xa6\x13" * 32))
    return ImageChops.difference(image, filled).getbbox() is None


def _decode_keyed_png(container: Container, key: tuple[int, ...]) -> Image.Image:
    """Decode a grey or RGB PNG of which one colour is clear, compared in the depth of the file, to RGBA."""
    depth = container.depth
    if depth == 16 and len(key) == 3:  # of which Pillow reads the high bytes only
        decoded = cv2.imdecode(np.frombuffer(container.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise ValueError("its pixels cannot be decoded")
        values: NDArray[np.uint8 | np.uint16] = decoded[..., ::-1].astype(np.uint16)
    else:
        image = _open_pixels(container)
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
    if depth < 8:  # scaled to 8 bits
        key = tuple(value * 255 // (2**depth - 1) for value in key)
    clear = values == key[0] if values.ndim == 2 else (values == key).all(-1)
    if depth == 16:
        values = (values // 256).astype(np.uint8)
    rgb = np.stack([values] * 3, -1) if values.ndim == 2 else values
    alpha = np.where(clear, 0, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([rgb, alpha[..., None]], -1))


def _scale_deep_grey(image: Image.Image, is_mask: bool) -> Image.Image:
    """Return 16-bit grey as 8-bit; a mask whose values do not go beyond 8 bits as they are."""
    values = np.asarray(image)
    shift = 0 if is_mask and values.max() <= 255 else 8
    return Image.fromarray((values >> shift).astype(np.uint8))


def _convert_to_srgb(
    image: Image.Image, container: Container, *, has_colours: bool
) -> tuple[Image.Image, list[str], list[str]]:
    """Return 8-bit sRGB, RGB or RGBA, what was converted, and notes."""
    conversions: list[str] = []
    notes: list[str] = []
    if container.depth == 16:
        conversions.append("16 bits a channel")
    if image.mode == "CMYK":
        conversions.append("CMYK")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    colours = "L" if image.mode in ("1", "L", "LA") else "CMYK" if image.mode == "CMYK" else "RGB"
    if image.mode not in ("L", "CMYK", mode):
        image = image.convert(mode)
    if has_colours and container.gamma is not None and (table := build_gamma_table(container.gamma)) is not None:
        conversions.append(f"gamma {container.gamma:g}")
        image = image.convert(mode).point([*table * 3, *range(256)][: 256 * len(mode)])
    if has_colours and container.colour_note is not None:
        notes.append(container.colour_note)
    if has_colours and container.profile is not None:
        converter = build_converter(container.profile, colours)
        if converter is None:
            notes.append("its colour profile cannot be used, its colours are taken for sRGB")
        elif converter.transform is not None:
            if image.mode != "CMYK":
                conversions.append(f"the colour profile {converter.name!r}")
            image = apply_converter(image, converter, mode)
    return (image if image.mode == mode else image.convert(mode)), conversions, notes


def _encode_image(image: Image.Image, kind: str, **options: int) -> bytes:
    bare = image.copy()
    bare.info = {}  # Pillow would write some of it
    buffer = io.BytesIO()
    bare.save(buffer, kind, **options)
    return buffer.getvalue()


def _fit_into(image: Image.Image, side: int) -> Image.Image:
    """Scale the image to `side` by its longer side; a strip stays a pixel thick."""
    if min(image.size) * 2 * side > max(image.size):
        return ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS)
    return image.resize((side, 1) if image.width > image.height else (1, side), Image.Resampling.LANCZOS)


def _truncate_label(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return as much of a label as fits on one line; it may be a catalogue's, of any length and with line ends."""
    label = " ".join(label[: 2 * width].split())
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"
