"""Image files: read within limits, written without loss, and never over somebody else's."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from canvas.inference.provenance import Provenance, build_save_options
from canvas.light.certificate import SUFFIX, read_certified_name
from canvas.light.scene import ImageCertificate
from canvas.pins.images import DEFAULT_LIMITS, DecodedImage, ImageLimits, read_image

LOSSLESS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True, "quality": 80, "exact": True},
}
NO_MASK = Path("-")
"""In place of a mask's file: the product has an alpha channel."""
MAX_WEBP_SIDE = 16_383  # the longest that the format knows


def read_image_file(path: Path, limits: ImageLimits = DEFAULT_LIMITS, *, is_mask: bool = False) -> DecodedImage:
    """Decode the image at `path` as `read_image` does. Raises ValueError in one sentence if it is none or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limits.max_bytes:
        raise ValueError(f"{path} cannot be used: it has more bytes than the limit of {limits.max_bytes}")
    try:
        return read_image(data, limits, is_mask=is_mask)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def read_mask_files(paths: Sequence[Path], limits: ImageLimits = DEFAULT_LIMITS) -> list[DecodedImage | None]:
    """Decode masks as `read_image_file` does; NO_MASK stands for that of a cut-out, which needs none."""
    return [None if path == NO_MASK else read_image_file(path, limits, is_mask=True) for path in paths]


def load_image(path: Path, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Load the image at `path`, RGB or RGBA, upright. Raises ValueError in one sentence if it is none or too large."""
    return read_image_file(path, limits).image


def check_format(name: str, suffix: str, size: tuple[int, int]) -> None:
    """Raise ValueError, which says `name`, unless files of `suffix` (no dot) hold images of that size without loss."""
    if suffix not in LOSSLESS:
        raise ValueError(
            f"{name} is refused, it would change the product's pixels or is unknown; use {' or '.join(LOSSLESS)}"
        )
    if suffix == "webp" and max(size) > MAX_WEBP_SIDE:
        raise ValueError(f"{size[0]} x {size[1]} pixels are too many for webp, {MAX_WEBP_SIDE} a side at most: use png")


def save_lossless(
    image: Image.Image, path: Path, provenance: Provenance | None = None, certificate: ImageCertificate | None = None
) -> None:
    """Write `image` as PNG or lossless WebP, by the suffix of `path`; lossy formats would change the product. What it
    says of itself (canvas.inference.provenance) goes into its metadata. A file that is there is replaced when the new
    one is whole."""
    _replace_file(path, encode_lossless(image, path, provenance, certificate))


def replace_image(
    image: Image.Image, path: Path, provenance: Provenance | None = None, certificate: ImageCertificate | None = None
) -> None:
    """Write `image` as `save_lossless` does, and its certificate beside it; that of the image that was there goes."""
    save_lossless(image, path, provenance, certificate)
    if certificate is not None:
        save_certificate(certificate, path)
    elif read_certified_name(beside := name_certificate(path)) == path.name:
        beside.unlink()


def save_certificate(certificate: ImageCertificate, image: Path) -> None:
    """Write the certificate of the file `image` beside it; one that is there was another image's and is replaced."""
    _replace_file(name_certificate(image), _encode_certificate(certificate, image))


def _replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, in place of what is there."""
    beside = path.with_name(f".{os.getpid()}{path.suffix}")  # no longer than the longest name
    beside.unlink(missing_ok=True)  # of a killed process of that number
    _write_new(beside, data)
    try:
        beside.replace(path)
    except BaseException:
        beside.unlink()
        raise


def save_beside(
    image: Image.Image, path: Path, provenance: Provenance | None = None, certificate: ImageCertificate | None = None
) -> Path:
    """Write `image` and its certificate, but never over a file: return `path`, or the next name that is free.

    mug-0.png becomes mug-0_2.png where either it or mug-0.certificate.json is there. Where a file already holds the
    same bytes, its path comes back.

    Raises:
        ValueError: The format that the suffix names would change pixels, or holds no image of that size.
    """
    data = encode_lossless(image, path, provenance, certificate)
    for target in _list_names(path):
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return target
        if not _is_free(target):
            continue
        with suppress(FileExistsError):  # somebody else was faster
            _write_pair(target, data, certificate)
            return target
    raise AssertionError("names do not end")


def _write_pair(path: Path, data: bytes, certificate: ImageCertificate | None) -> None:
    """Write a new image and its certificate, if it has one, or neither."""
    if certificate is None:
        _write_new(path, data)
        return
    _write_new(beside := name_certificate(path), _encode_certificate(certificate, path))
    try:
        _write_new(path, data)
    except BaseException:
        beside.unlink()
        raise


def find_free_name(path: Path) -> Path:
    """Return `path`, or the next name that `save_beside` would take today."""
    return next(candidate for candidate in _list_names(path) if _is_free(candidate))


def _list_names(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in itertools.count(2))


def _is_free(path: Path) -> bool:
    """Tell that there is neither an image nor a certificate, which `verify` would take for the image's."""
    return not (os.path.lexists(path) or os.path.lexists(name_certificate(path)))


def name_certificate(image: Path) -> Path:
    """Return where the certificate of the file `image` lies."""
    return image.with_name(image.stem + SUFFIX)


def _encode_certificate(certificate: ImageCertificate, image: Path) -> bytes:
    return (certificate.to_json(image.name) + "\n").encode()


def encode_lossless(
    image: Image.Image, path: Path, provenance: Provenance | None = None, certificate: ImageCertificate | None = None
) -> bytes:
    """Encode as PNG or lossless WebP, by the suffix of `path`, with what the image says of itself."""
    suffix = path.suffix.lower().lstrip(".")
    check_format(path.name, suffix, image.size)
    options, buffer = LOSSLESS[suffix], io.BytesIO()
    image.save(buffer, **options, **build_save_options(options["format"], provenance, certificate))
    return buffer.getvalue()


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file whole or not at all; FileExistsError where there is one."""
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
        except BaseException:  # Ctrl-C among them
            path.unlink()
            raise
