"""The product cut-outs of the showroom and what its catalogue says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.light.gain import FloatPixels
from canvas.pins.images import Pixels
from canvas.pins.masks import Box, Mask, compute_box
from canvas.sources.showroom.spec import require_file

CACHED_SIDE = 512
"""Long side in pixels at which a cut-out is kept: twice what the largest paste needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoutSource:
    """One image file of a product and how to cut the product out of its baked shadow and reflection."""

    file: str
    opaque: int = 150  # alpha from which a pixel is product; shadows reach 240 beside solid goods
    frames: tuple[Box, ...] = ((0, 0, 1024, 1024),)  # the product lies in their union
    mirrors: bool = False  # nothing on it to read
    baked_shadow: bool = True  # its own shadow may be shown on white


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One product of the catalogue with its cut-outs; `held_out` products never appear in the train split."""

    product_id: str
    name: str
    category: str
    description: str
    hangs: bool  # a garment: shown flat, not standing
    held_out: bool
    cutouts: tuple[Cutout, ...]


@dataclass(frozen=True, slots=True)
class Cutout:
    """A cropped product."""

    source: CutoutSource
    color: FloatPixels  # [h, w, 3] sRGB in 0..1, defined where `soft` > 0
    matte: FloatPixels  # [h, w] opacity of the product in 0..1: glass lets light through
    soft: FloatPixels  # [h, w] the same with the shadow and reflection that are baked into the file
    box: Box  # of the product within the crop


def _make_sources(*files: str, mirrors: bool = False) -> tuple[CutoutSource, ...]:
    return tuple(CutoutSource(file=file, mirrors=mirrors) for file in files)


def _make_shoe_sources(shoe: str) -> tuple[CutoutSource, ...]:
    return (*_make_sources(f"{shoe}_1", f"{shoe}_3", mirrors=True), *_make_sources(f"{shoe}_4"))


def _make_opaque_source(file: str, opaque: int, frame: Box, *, baked_shadow: bool = True) -> tuple[CutoutSource]:
    return (CutoutSource(file=file, opaque=opaque, frames=(frame,), baked_shadow=baked_shadow),)


# Primary key in populatedb_data.json -> files. Left out: files that are not cut-outs (data card).
CATALOGUE: dict[int, tuple[CutoutSource, ...]] = {
    **{60 + number: _make_opaque_source(f"paints_{number:02d}", 245, (0, 0, 1024, 826)) for number in range(1, 6)},
    **{
        key: _make_opaque_source(f"fd_juice_{number:02d}", 245, (0, 0, 1024, 853))
        for key, number in ((71, 6), (73, 5), (74, 1), (77, 3), (78, 4), (79, 2))
    },
    81: _make_opaque_source("wine-red", 230, (336, 0, 534, 914), baked_shadow=False),
    82: _make_opaque_source("wine-white", 230, (478, 0, 668, 925), baked_shadow=False),
    83: _make_opaque_source("beer-02_2", 190, (300, 0, 684, 872)),
    84: (CutoutSource(file="beer-01_2", frames=((280, 0, 696, 840), (696, 0, 840, 762))),),
    85: _make_sources("cuschion01", mirrors=True),
    86: _make_sources("cuschion02", mirrors=True),
    87: _make_shoe_sources("sneakers_01"),
    88: _make_shoe_sources("sneakers_02"),
    89: _make_sources("cl_boot07_1", "cl_boot07_2"),
    107: _make_sources("cl_polo01", mirrors=True),
    108: _make_sources("cl_polo02", mirrors=True),
    109: _make_sources("cl_polo03-woman", mirrors=True),
    110: _make_sources("cl_polo04-woman", mirrors=True),
    111: _make_sources("cl_boot01_1", "cl_boot01_3"),
    112: _make_sources("cl_boot03_1", "cl_boot03_2", mirrors=True),
    113: _make_sources("cl_boot06_1"),
    **{114 + number: _make_sources(f"cl_bogo{number:02d}_1") for number in range(1, 5)},
}

NAMES = {
    107: "Black Polo Shirt",
    108: "White Polo Shirt",
    109: "White Women's Polo Shirt",
    110: "Black Women's Polo Shirt",
    111: "Red T-shirt",
    112: "Turquoise T-shirt",
    113: "White Wave Print T-shirt",
}
"""Names that replace the file's: some repeat there, and some files are shared by products that they do not show."""

HELD_OUT_PRODUCTS = frozenset({64, 78, 83, 86, 88, 110, 112, 117})
"""One product of each of the eight categories."""

HANGING_CATEGORIES = frozenset({"T-shirts", "Polo Shirts", "Hoodies"})


def load_products(folder: Path) -> tuple[Product, ...]:
    """Load the products from the package files under `folder` (data/showroom); `ValueError` if one is missing."""
    records = json.loads(require_file(folder / "populatedb_data.json").read_text(encoding="utf-8"))
    fields_of = {(record["model"], record["pk"]): record["fields"] for record in records}
    products = []
    for key, sources in CATALOGUE.items():
        fields = fields_of["product.product", key]
        category = fields_of["product.category", int(fields["category"])]["name"]
        product = Product(
            product_id=f"saleor-{key}",
            name=NAMES.get(key, fields["name"]),
            category=category,
            description=fields["description"],
            hangs=category in HANGING_CATEGORIES,
            held_out=key in HELD_OUT_PRODUCTS,
            cutouts=tuple(_load_cutout(folder / "products", source) for source in sources),
        )
        products.append(product)
    return tuple(products)


def _load_cutout(folder: Path, source: CutoutSource) -> Cutout:
    path = require_file(folder / f"saleordemoproduct_{source.file}.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"))
    left, top, right, bottom = compute_box(pixels[..., 3] > 8)
    pixels = pixels[top:bottom, left:right]
    alpha = pixels[..., 3]
    matte = np.where(_find_product(alpha, source, left, top), alpha, 0)
    scale = min(1.0, CACHED_SIDE / max(bottom - top, right - left))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    soft_full = alpha.astype(np.float32) / 255
    premultiplied = pixels[..., :3].astype(np.float32) / 255 * soft_full[..., None]
    soft = resize_by_area(soft_full, size)
    color = resize_by_area(premultiplied, size) / np.maximum(soft, 1e-4)[..., None]
    small_matte = resize_by_area(matte.astype(np.float32) / 255, size)
    return Cutout(source, np.clip(color, 0, 1), small_matte, soft, compute_box(small_matte > 0.5))


def resize_by_area(array: FloatPixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """Average over areas to `size` (width, height)."""
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _find_product(alpha: Pixels, source: CutoutSource, x: int, y: int) -> Mask:
    """Find what of `alpha`, a crop of the file at (x, y), is product."""
    framed = np.zeros(alpha.shape, dtype=bool)
    for left, top, right, bottom in source.frames:
        framed[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)] = True
    labels, sizes = _label_parts(framed & (alpha >= source.opaque))
    region = (sizes >= 300)[labels]
    # Print and gloss inside the product are a little transparent; the gap in a handle is not product, nor
    # is the part outside, which is the only one that touches the border.
    labels, sizes = _label_parts(~region)
    opacity = np.bincount(labels.ravel(), weights=alpha.ravel()) / np.maximum(sizes, 1)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    filled = opacity >= 120
    filled[0] = False
    filled[edge] = False
    return region | filled[labels]


def _label_parts(inside: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label every pixel's 4-connected part (0: outside), and measure the parts, 0 for what lies outside."""
    count, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    sizes = np.bincount(labels.ravel(), minlength=count)
    sizes[0] = 0
    return np.asarray(labels, dtype=np.int32), sizes
