"""Stand-ins for the showroom's package files: same names, sizes and structure, painted here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.sources.showroom.products import CATALOGUE
from canvas.sources.showroom.spec import SCENES


def write_showroom_files(data: Path) -> Path:
    """Write `data`/showroom and return it."""
    folder = data / "showroom"
    (folder / "products").mkdir(parents=True)
    (folder / "scenes").mkdir()
    rng = np.random.default_rng(0)
    sheets = [sheet for group in CATALOGUE.values() for sheet in group]
    for number, sheet in enumerate(sheets):
        color = rng.integers(30, 220, 3)
        pixels = np.zeros((1024, 1024, 4), dtype=np.uint8)
        pixels[700:780, 380:700] = (0, 0, 0, 90)  # a baked shadow
        pixels[250:760, 380:560] = (*color, 255)
        pixels[300 : 330 + 8 * number, 420:520, :3] = 255 - color  # a print, different on each
        Image.fromarray(pixels).save(folder / "products" / f"saleordemoproduct_{sheet.file}.png", compress_level=1)
    for scene in SCENES:
        rows, columns = np.mgrid[0:512, 0:1024]
        noise = rng.normal(0, 25, (512, 1024, 1))
        sky, ground = rng.integers(90, 200, 3), rng.integers(40, 150, 3)
        base = np.where((rows < 256)[..., None], sky, ground) + 30 * np.sin(columns / 60)[..., None]
        Image.fromarray(np.clip(base + noise, 0, 250).astype(np.uint8)).save(folder / "scenes" / f"{scene.file}_1k.jpg")
    categories = ["Paints", "Juices", "Alcohol", "Homewares", "Footwear", "T-shirts", "Polo Shirts", "Hoodies"]
    records: list[dict[str, object]] = [
        {"model": "product.category", "pk": number, "fields": {"name": name}} for number, name in enumerate(categories)
    ]
    for key in CATALOGUE:
        fields = {"name": f"Product {key}", "category": _category(key), "description": f"All about product {key}."}
        records.append({"model": "product.product", "pk": key, "fields": fields})
    (folder / "populatedb_data.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def _category(key: int) -> int:
    bounds = (70, 80, 84, 86, 88)
    if key >= 107:
        return 6 if key <= 110 else 5 if key <= 113 else 7
    return 5 if key == 89 else sum(key > bound for bound in bounds)
