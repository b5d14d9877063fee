"""The product cut-outs of the showroom and what its catalogue says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.sources.showroom.camera import FloatPixels

CACHED_SIDE = 512
"""Long side in pixels at which a cut-out is kept: twice what the largest paste needs."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoutSource:
    """One picture file of a product and how to cut the product out of its baked shadow and reflection."""

    file: str
    opaque: int = 150  # alpha from which a pixel is product; shadows reach 240 beside solid goods
    frames: tuple[Box, ...] = ((0, 0, 1024, 1024),)  # x0, y0, x1, y1: the product lies in their union
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
    """A cropped product. `color` [h, w, 3] sRGB in 0..1 is defined where `soft` > 0.

    `matte` [h, w] in 0..1 is the product's opacity (glass lets light through), `soft` the same with the
    shadow and reflection that are baked into the file; `box` is the product within the crop.
    """

    file: str
    color: FloatPixels
    matte: FloatPixels
    soft: FloatPixels
    box: Box
    mirrors: bool
    baked_shadow: bool


def _make_juice_sources(number: int) -> tuple[CutoutSource, ...]:
    return (CutoutSource(file=f"fd_juice_{number:02d}", opaque=245, frames=((0, 0, 1024, 853),)),)


def _make_paint_sources(number: int) -> tuple[CutoutSource, ...]:
    return (CutoutSource(file=f"paints_{number:02d}", opaque=245, frames=((0, 0, 1024, 826),)),)


def _make_shoe_sources(number: int) -> tuple[CutoutSource, ...]:
    return (
        CutoutSource(file=f"sneakers_{number:02d}_1", mirrors=True),
        CutoutSource(file=f"sneakers_{number:02d}_3", mirrors=True),
        CutoutSource(file=f"sneakers_{number:02d}_4"),
    )


# Primary key in populatedb_data.json -> name (None: as there; some repeat, some files are shared by
# products that they do not show) and files. Left out: files that are not cut-outs (DATA card).
CATALOGUE: dict[int, tuple[str | None, tuple[CutoutSource, ...]]] = {
    61: (None, _make_paint_sources(1)),
    62: (None, _make_paint_sources(2)),
    63: (None, _make_paint_sources(3)),
    64: (None, _make_paint_sources(4)),
    65: (None, _make_paint_sources(5)),
    71: (None, _make_juice_sources(6)),
    73: (None, _make_juice_sources(5)),
    74: (None, _make_juice_sources(1)),
    77: (None, _make_juice_sources(3)),
    78: (None, _make_juice_sources(4)),
    79: (None, _make_juice_sources(2)),
    81: (None, (CutoutSource(file="wine-red", opaque=230, frames=((336, 0, 534, 914),), baked_shadow=False),)),
    82: (None, (CutoutSource(file="wine-white", opaque=230, frames=((478, 0, 668, 925),), baked_shadow=False),)),
    83: (None, (CutoutSource(file="beer-02_2", opaque=190, frames=((300, 0, 684, 872),)),)),
    84: (None, (CutoutSource(file="beer-01_2", frames=((280, 0, 696, 840), (696, 0, 840, 762))),)),
    85: (None, (CutoutSource(file="cuschion01", mirrors=True),)),
    86: (None, (CutoutSource(file="cuschion02", mirrors=True),)),
    87: (None, _make_shoe_sources(1)),
    88: (None, _make_shoe_sources(2)),
    89: (None, (CutoutSource(file="cl_boot07_1"), CutoutSource(file="cl_boot07_2"))),
    107: ("Black Polo Shirt", (CutoutSource(file="cl_polo01", mirrors=True),)),
    108: ("White Polo Shirt", (CutoutSource(file="cl_polo02", mirrors=True),)),
    109: ("White Women's Polo Shirt", (CutoutSource(file="cl_polo03-woman", mirrors=True),)),
    110: ("Black Women's Polo Shirt", (CutoutSource(file="cl_polo04-woman", mirrors=True),)),
    111: ("Red T-shirt", (CutoutSource(file="cl_boot01_1"), CutoutSource(file="cl_boot01_3"))),
    112: (
        "Turquoise T-shirt",
        (CutoutSource(file="cl_boot03_1", mirrors=True), CutoutSource(file="cl_boot03_2", mirrors=True)),
    ),
    113: ("White Wave Print T-shirt", (CutoutSource(file="cl_boot06_1"),)),
    115: (None, (CutoutSource(file="cl_bogo01_1"),)),
    116: (None, (CutoutSource(file="cl_bogo02_1"),)),
    117: (None, (CutoutSource(file="cl_bogo03_1"),)),
    118: (None, (CutoutSource(file="cl_bogo04_1"),)),
}

HELD_OUT_PRODUCTS = frozenset({64, 78, 83, 86, 88, 110, 112, 117})
"""One product of each of the eight categories."""

HANGING_CATEGORIES = frozenset({"T-shirts", "Polo Shirts", "Hoodies"})


def load_products(folder: Path) -> tuple[Product, ...]:
    """The products from the package files under `folder` (data/showroom); `ValueError` if one is missing."""
    records = json.loads(_require_file(folder / "populatedb_data.json").read_text(encoding="utf-8"))
    by_model: dict[str, dict[int, dict[str, str]]] = {"product.product": {}, "product.category": {}}
    for record in records:
        by_model.setdefault(record["model"], {})[record["pk"]] = record["fields"]
    products = []
    for key, (name, sheets) in CATALOGUE.items():
        fields = by_model["product.product"][key]
        category = by_model["product.category"][int(fields["category"])]["name"]
        products.append(
            Product(
                product_id=f"saleor-{key}",
                name=name or fields["name"],
                category=category,
                description=fields["description"],
                hangs=category in HANGING_CATEGORIES,
                held_out=key in HELD_OUT_PRODUCTS,
                cutouts=tuple(_load_cutout(folder / "products", sheet) for sheet in sheets),
            )
        )
    return tuple(products)


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing: build the demo data with `make data`")
    return path


def _load_cutout(folder: Path, sheet: CutoutSource) -> Cutout:
    path = _require_file(folder / f"saleordemoproduct_{sheet.file}.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"))
    left, top, right, bottom = _compute_bounds(pixels[..., 3] > 8)
    pixels = pixels[top:bottom, left:right]
    alpha = pixels[..., 3]
    matte = np.where(_find_product_region(alpha, sheet, left, top), alpha, 0)
    scale = min(1.0, CACHED_SIDE / max(bottom - top, right - left))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    soft_full = alpha.astype(np.float32) / 255
    premultiplied = pixels[..., :3].astype(np.float32) / 255 * soft_full[..., None]
    soft = resize_by_area(soft_full, size)
    color = resize_by_area(premultiplied, size) / np.maximum(soft, 1e-4)[..., None]
    small_matte = resize_by_area(matte.astype(np.float32) / 255, size)
    return Cutout(
        file=sheet.file,
        color=np.clip(color, 0, 1),
        matte=small_matte,
        soft=soft,
        box=_compute_bounds(small_matte > 0.5),
        mirrors=sheet.mirrors,
        baked_shadow=sheet.baked_shadow,
    )


def resize_by_area(array: FloatPixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """Area-averaged to `size` (width, height)."""
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _find_product_region(alpha: NDArray[np.uint8], sheet: CutoutSource, x: int, y: int) -> NDArray[np.bool_]:
    """What of `alpha`, a crop of the file at (x, y), is product."""
    framed = np.zeros(alpha.shape, dtype=bool)
    for left, top, right, bottom in sheet.frames:
        framed[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)] = True
    labels, sizes = _label_parts(framed & (alpha >= sheet.opaque))
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


def _label_parts(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label of every pixel's 4-connected part (0: outside), and the parts' sizes, 0 for what lies outside."""
    count, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    sizes = np.bincount(labels.ravel(), minlength=count)
    sizes[0] = 0
    return np.asarray(labels, dtype=np.int32), sizes


def _compute_bounds(inside: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
