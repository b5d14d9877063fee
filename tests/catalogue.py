"""A catalogue as a shop might hand it in: real photographs that the showroom does not use, in every encoding.

Photographs of scikit-learn and Matplotlib are the backgrounds. The products are cut-outs of a dahlia and of a gift box
in several hues, five photographs each. There is no truth, no alt text, no board and no engagement. One product has a
hostile title and department.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
from PIL import Image, ImageDraw, ImageFilter
from ruamel.yaml import YAML

from canvas.pins import tables
from canvas.pins.images import encode_png
from canvas.pins.masks import encode_alpha
from components.train_captioner import train_captioner
from components.train_segmenter import train_segmenter
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Stage
from lifecycle.run.stage import run_stage

ROOT = Path(__file__).parents[1]
SAMPLES = Path(sklearn.__file__).parent / "datasets/images", Path(matplotlib.__file__).parent / "mpl-data/sample_data"
HUES = {"orange": 0, "red": -22, "green": 90, "blue": 150, "violet": 190, "pink": 215}
"""Hue of a product -> turns of 1/256 from the dahlia's."""
DEPARTMENTS = {"dahlia": "Flowers", "gift box": "Gifts"}
PLACES = {
    "before a temple": ("china.jpg", (0, 60, 640, 427)),
    "among leaves": ("flower.jpg", (0, 0, 190, 427)),
    "beside a flag": ("grace_hopper.jpg", (0, 0, 175, 600)),
}
CUT_OUTS = ("Minduka_Present_Blue_Pack.png", "flower.jpg")
PHOTOS = 5  # of a product
HOSTILE_SKU = "gift-pink"
HOSTILE_TITLE = "Box <script>alert(1)</script>](http://127.0.0.1:9/x.png) \x1b]0;owned\x07" + " of many words" * 200
HOSTILE_DEPARTMENT = "Gifts </table><script>alert(2)</script><img src=http://127.0.0.1:9/y.png>"
"""What somebody who may write a catalogue, but not run code, would write into it."""
PAGE = ROOT / "docs/tutorials/your-catalogue.md"


@dataclass(frozen=True, slots=True)
class Photo:
    """A product in a place, and what is known of it."""

    image: Image.Image
    scene: Image.Image  # without the product
    alpha: Image.Image  # L
    product: str
    place: str
    sku: str


def read_page_params() -> dict[str, Any]:
    """What the tutorial says to change in params.yaml."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    params: dict[str, Any] = YAML(typ="safe", pure=True).load(block)
    return params


@cache
def _open(name: str) -> Image.Image:
    return Image.open(next(folder / name for folder in SAMPLES if (folder / name).is_file())).copy()


@cache
def cut_out(kind: str, hue: str) -> Image.Image:
    """The product alone, RGBA."""
    if kind == "gift box":
        image, turn = _open(CUT_OUTS[0]).convert("RGBA"), HUES[hue] - HUES["blue"]
    else:
        image, turn = _open(CUT_OUTS[1]).crop((165, 82, 445, 362)).convert("RGBA"), HUES[hue]
        disc = Image.new("L", image.size)
        ImageDraw.Draw(disc).ellipse((10, 8, 272, 274), fill=255)
        image.putalpha(disc.filter(ImageFilter.GaussianBlur(2)))
    h, s, v = image.convert("RGB").convert("HSV").split()
    turned = Image.merge("HSV", (h.point(lambda value: (value + turn) % 256), s, v)).convert("RGB")
    turned.putalpha(image.getchannel("A"))
    return turned


def take_photos(count: int, seed: int) -> Iterator[Photo]:
    """Yield photographs, PHOTOS of a product in a row."""
    rng = np.random.default_rng(seed)
    products = [(kind, hue) for hue in HUES for kind in DEPARTMENTS]
    for number in range(count):
        turn, product_number = divmod(number // PHOTOS, len(products))
        kind, hue = products[product_number]
        place = list(PLACES)[int(rng.integers(len(PLACES)))]
        name, box = PLACES[place]
        size = int(rng.integers(168, 224)), int(rng.integers(152, 208))
        region = _open(name).convert("RGB").crop(box)
        scale = rng.uniform(1.0, 1.6) * max(size[0] / region.width, size[1] / region.height)
        region = region.resize((round(region.width * scale) + 1, round(region.height * scale) + 1))
        left, top = (int(rng.integers(big - small)) for big, small in zip(region.size, size, strict=True))
        image = region.crop((left, top, left + size[0], top + size[1]))
        side = int(rng.integers(72, 104))
        product = cut_out(kind, hue).resize((side, side))
        left, top = (int(rng.integers(8, edge - side - 8)) for edge in size)
        corner = left, top
        alpha = Image.new("L", size)
        alpha.paste(product.getchannel("A"), corner)
        scene = image.copy()
        image.paste(product, corner, product)
        sku = f"{kind[:4]}-{hue}" + (f"-{turn}" if turn else "")
        yield Photo(image, scene, alpha, f"{hue} {kind}", place, sku)


def encode_photo(photo: Photo, number: int) -> tuple[str, bytes]:
    """Return suffix and bytes: every encoding in turn."""
    image = photo.image
    lone = image.convert("RGBA")
    lone.putalpha(photo.alpha)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "JPEG", {"quality": 92}),
        (image.transpose(Image.Transpose.ROTATE_90), "JPEG", {"quality": 92, "exif": exif}),
        (image.convert("CMYK"), "JPEG", {"quality": 92}),
        (image, "PNG", {}),
        (image.quantize(256), "PNG", {}),
        (lone, "PNG", {}),
        (image, "WEBP", {"quality": 92}),
        (image.convert("L"), "JPEG", {"quality": 92}),
        (lone, "WEBP", {"lossless": True}),
        (image, "JPEG", {"quality": 92, "progressive": True}),
    ]
    encoded, format_, options = kinds[number % len(kinds)]
    buffer = io.BytesIO()
    encoded.save(buffer, format_, **options)
    return format_.lower().replace("jpeg", "jpg"), buffer.getvalue()


def write_catalogue(folder: Path, count: int, formats: tuple[str, ...] = ("csv",)) -> None:
    """Write `folder`/photos and `folder`/catalogue.FORMAT: `count` photographs, and three rows that are no pins."""
    (folder / "photos").mkdir(parents=True)
    rows = []
    for number, photo in enumerate(take_photos(count, seed=0)):
        suffix, data = encode_photo(photo, number)
        (folder / f"photos/{number:03d}.{suffix}").write_bytes(data)
        hostile = photo.sku == HOSTILE_SKU
        rows.append(
            {
                "sku": photo.sku,
                "photo": f"photos/{number:03d}.{suffix}",
                "name": HOSTILE_TITLE if hostile else photo.product.capitalize(),
                "text": f"A {photo.product} {photo.place}.",
                "department": HOSTILE_DEPARTMENT if hostile else DEPARTMENTS[photo.product.partition(" ")[2]],
            }
        )
    (folder / "photos/note.jpg").write_text("no photograph")
    rows += [rows[0] | {"photo": f"photos/{name}.jpg"} for name in ("note", "missing", "000")]
    for format_ in formats:
        path = folder / f"catalogue.{format_}"
        if format_ == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif format_ == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)


def train_models(folder: Path, count: int = 60) -> None:
    """Train `folder`/segmenter and `folder`/captioner for some seconds, by their stages, on other photographs."""
    pins, truths = [], []
    for number, photo in enumerate(take_photos(count, seed=1)):
        split = "train" if number % 5 else "unseen_view"
        pin: dict[str, Any] = {"pin_id": f"{number:03d}", "image": encode_png(photo.image), "split": split}
        pin |= {"width": photo.image.width, "height": photo.image.height, "alt_text": f"{photo.product}, {photo.place}"}
        pins.append(dict.fromkeys(tables.PINS.names) | pin)
        alpha = encode_alpha(np.asarray(photo.alpha, np.float32) / np.float32(255))
        known = {"pin_id": pin["pin_id"], "kind": "in_scene", "scene": photo.place, "alpha": alpha}
        known["background"] = encode_png(photo.scene)
        truths.append(dict.fromkeys(tables.TRUTH.names) | known)
    tables.write_rows(folder / "pins", pins, tables.PINS)
    tables.write_rows(folder / "truth", truths, tables.TRUTH)
    tables.write_rows(folder / "no_truth", [], tables.TRUTH)
    kept = [dict.fromkeys(tables.KEPT.names) | {"pin_id": pin["pin_id"], "kept": True} for pin in pins]
    tables.write_rows(folder / "kept", kept, tables.KEPT)
    longer = {
        "train_segmenter": {"train": {"steps": 60}},
        "train_captioner": {"train": {"steps": 80, "learning_rate": 0.003}},
    }
    sections = merge_sections(load_sections("tiny", ROOT), longer)
    stages: tuple[tuple[Stage[Any], str, str], ...] = (
        (train_segmenter, "truth", "segmenter"),
        (train_captioner, "no_truth", "captioner"),
    )
    for stage, truth, model in stages:
        inputs = {"pins": folder / "pins", "kept": folder / "kept", "truth": folder / truth}
        outputs = {name: folder / f"{model}-{name}" for name in stage.outputs} | {"model": folder / model}
        run_stage(stage, sections, inputs, outputs, send=False)
