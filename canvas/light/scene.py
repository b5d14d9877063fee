"""The certificate of an image of several products, or of one on another canvas: one of each product, and the layout.

Products on a canvas may be resized, and later ones lie over earlier ones. Both follow from originals, masks and layout,
so the gain of each is checked on what is seen of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from canvas.light.certificate import Certificate, parse_certificate

SCENE_FORMAT = "canvas.scene-certificate/1"


@dataclass(frozen=True, slots=True)
class SceneCertificate:
    """What was done to the products of one image."""

    layout: Mapping[str, Any]  # its words (canvas.layout.spec)
    products: tuple[Certificate, ...]
    """In their order. `core` is the whole mask of a product that a segmenter cut out, edge and all, in its own image;
    left and top are those of its box on the canvas."""

    def to_json(self, name: str | None = None) -> str:
        """Return the certificate as JSON, of an image file called `name`."""
        products = [json.loads(product.to_json()) for product in self.products]
        content = {"format": SCENE_FORMAT, **({} if name is None else {"name": name}), "layout": dict(self.layout)}
        return json.dumps(content | {"products": products})


ImageCertificate: TypeAlias = Certificate | SceneCertificate


def is_scene_certificate(text: str) -> bool:
    """Tell whether JSON says that it is a certificate of a scene."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # brackets without end
        return False
    return isinstance(content, dict) and content.get("format") == SCENE_FORMAT


def parse_scene_certificate(text: str, source: str, sizes: Sequence[tuple[int, int]]) -> SceneCertificate:
    """Read a certificate's JSON, which `source` names in errors, of originals of `sizes` (width, height).

    Raises:
        ValueError: In one sentence, where it is no certificate of this format, or of other originals.
    """
    content = json.loads(text)
    layout, products = content.get("layout"), content.get("products")
    if not isinstance(layout, dict) or not isinstance(products, list):
        raise ValueError(f"{source} is no certificate: layout or products are missing")
    if len(products) != len(sizes):
        raise ValueError(f"{source} is of {len(products)} products, {len(sizes)} product images were given: give each")
    certificates = [
        parse_certificate(json.dumps(product), f"{source}, product {number},", size)
        for number, (product, size) in enumerate(zip(products, sizes, strict=True), start=1)
    ]
    return SceneCertificate(layout, tuple(certificates))
