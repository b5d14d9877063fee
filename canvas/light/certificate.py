"""The certificate of an image: what anyone needs, beside the image and the original, to check what was done to a
product. It is JSON, in a file beside the image and in the metadata of a PNG."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canvas.light.gain import GRID, GainGrid
from canvas.light.laws import Check
from canvas.light.shadow.record import ShadowRecord, parse_shadow
from canvas.pins.images import ImageLimits, decode_image, encode_png, iterate_strips
from canvas.pins.masks import Mask

FORMAT = "canvas.certificate/1"
SUFFIX = ".certificate.json"
KEY = "canvas.certificate"
"""PNG's text chunk with the JSON."""
MAX_BYTES = 32 * 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What was done to the product of one image."""

    image_digest: str
    original_digest: str
    core_source: str  # what said which pixels are product: "alpha channel", "mask" or "segmenter"
    core: Mask | None  # None: the original's alpha channel says it
    band: Mask | None  # pixels where it is blended with the background; None: the original's, which was not mended
    grid: GainGrid  # over the bounding box of the core
    left: int  # of the original within the image, pixels
    top: int
    limits: Mapping[str, float]
    checks: tuple[Check, ...]  # as they were measured when the image was made; nobody need believe them
    shadow: ShadowRecord | None = None  # that the product casts on the background

    def to_json(self, name: str | None = None) -> str:
        """Return the certificate as JSON, of an image file called `name`."""
        laws = [{"law": check.law, "measured": check.measured, "limit": check.limit} for check in self.checks]
        core = None if self.core is None else _encode_mask(self.core)
        content = {
            "format": FORMAT,
            **({} if name is None else {"name": name}),
            "image": self.image_digest,
            "original": self.original_digest,
            "placement": {"left": self.left, "top": self.top},
            "core": {"source": self.core_source, "mask": core},
            **({} if self.band is None else {"band": _encode_mask(self.band)}),
            "log_gain": self.grid.tolist(),
            **({} if self.shadow is None else {"shadow": self.shadow.to_json()}),
            "limits": dict(self.limits),
            "laws": laws,
        }
        return json.dumps(content)


def digest_image(image: Image.Image) -> str:
    """Return the SHA-256 of an image's mode, size and pixels; how they are encoded does not matter."""
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height}\n".encode())
    for rows in iterate_strips(image.height, image.width):
        digest.update(np.asarray(image.crop((0, rows.start, image.width, rows.stop))).tobytes())
    return digest.hexdigest()


def read_certificate(path: Path) -> str:
    """Read the JSON in a certificate's file; ValueError where it cannot be read, or is too long to be one."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} is no certificate: it has more than {MAX_BYTES} bytes")
    return data.decode("utf-8", "replace")


def read_certified_name(path: Path) -> str | None:
    """Return the name of the image file that a certificate says it is of; None where it is none, or says no name."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    name = content.get("name") if isinstance(content, dict) and content.get("format") == FORMAT else None
    return name if isinstance(name, str) else None


def read_embedded_certificate(data: bytes) -> str | None:
    """Return the JSON in the metadata of an encoded PNG; None where there is none."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # text may stand behind the pixels
        text = image.info.get(KEY)
    return text if isinstance(text, str) else None


def parse_certificate(text: str, source: str, size: tuple[int, int]) -> Certificate:
    """Read a certificate's JSON, which `source` names in errors. What it says of itself is not checked here.

    Raises:
        ValueError: In one sentence, where it is no certificate of this format, or of an original of another size.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it does not say that its format is {FORMAT}")
        grid = np.array(_get(content, "log_gain", list), np.float64)
        if grid.shape != (GRID, GRID, 3) or not np.isfinite(grid).all():
            raise ValueError(f"log_gain must be {GRID} rows of {GRID} nodes of 3 finite numbers")
        placement, core = _get(content, "placement", dict), _get(content, "core", dict)
        limits = _get(content, "limits", dict)
        return Certificate(
            image_digest=_get(content, "image", str),
            original_digest=_get(content, "original", str),
            core_source=_get(core, "source", str),
            core=None if core.get("mask") is None else _decode_mask(_get(core, "mask", str), size, "core"),
            band=None if content.get("band") is None else _decode_mask(_get(content, "band", str), size, "band"),
            grid=grid,
            left=_get(placement, "left", int),
            top=_get(placement, "top", int),
            limits={name: float(limit) for name, limit in limits.items()},
            checks=(),
            shadow=parse_shadow(_get(content, "shadow", dict)) if "shadow" in content else None,
        )
    except (ValueError, TypeError, RecursionError) as error:  # brackets without end among them
        reason = "it is no JSON" if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{source} is no certificate: {reason}") from None


def _get(content: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} is missing or no {kind.__name__}")
    return value


def _encode_mask(mask: Mask) -> str:
    return base64.b64encode(encode_png(Image.fromarray(mask))).decode()


def _decode_mask(encoded: str, size: tuple[int, int], name: str) -> Mask:
    """Decode the mask of the core or the band; nothing larger than the original is decoded."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError(f"the mask of its {name} is no base64") from None
    mask = decode_image(data, ImageLimits(max_bytes=MAX_BYTES, max_pixels=size[0] * size[1]))
    if mask.size != size:
        raise ValueError(f"its {name} is {mask.width} x {mask.height} pixels, the original {size[0]} x {size[1]}")
    return np.asarray(np.asarray(mask.convert("L")) > 127)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that a certificate may hold")
