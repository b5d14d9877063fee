"""From plans to rows: rendering is a pure function of (seed, plan), so threads do not change a byte."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import encode_jpeg, encode_png, header
from canvas.sources.showroom.camera import Panorama, Pixels, View, load_panorama
from canvas.sources.showroom.compositing import fitted, hanging_shadow, over, relit, standing_shadow
from canvas.sources.showroom.defects import SPOIL, Picture, broken_bytes
from canvas.sources.showroom.engagement import engagement
from canvas.sources.showroom.plan import PinPlan, planned
from canvas.sources.showroom.products import load_products
from canvas.sources.showroom.scenes import SCENES
from canvas.sources.showroom.spec import ShowroomSpec
from canvas.sources.showroom.texts import empty_text, text_in_scene, text_of_scene, text_on_white, unrelated_text
from canvas.sources.showroom.views import background_of

BATCH = 64
QUALITY = 92
PLACES = "Places"
"""Category of a pin without a product."""

_BACKDROPS = (
    (255, 255, 255),
    (250, 249, 246),
    (244, 246, 248),
    (247, 241, 236),
    (238, 243, 238),
    (240, 238, 246),
    (246, 246, 246),
    (249, 245, 240),
)
"""White and its neighbours."""


@dataclass(frozen=True, slots=True)
class Showroom:
    """Everything that rendering reads."""

    seed: int
    plans: list[PinPlan]
    panoramas: dict[str, Panorama]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some pins (tables.PINS) and, row by row, their truth (tables.TRUTH)."""

    pins: pa.RecordBatch
    truth: pa.RecordBatch


def load_showroom(folder: Path, spec: ShowroomSpec, seed: int) -> Showroom:
    """The showroom over the package files in `folder` (data/showroom); `ValueError` if one is missing."""
    panoramas = {scene.file: load_panorama(folder / "scenes" / f"{scene.file}_1k.jpg") for scene in SCENES}
    return Showroom(seed, planned(spec, seed, load_products(folder)), panoramas)


def rendered(showroom: Showroom, threads: int) -> Iterator[Rows]:
    """All pins in order, BATCH at a time, rendered on `threads` threads; two batches are in memory at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(showroom.plans), BATCH):
            plans = showroom.plans[start : start + BATCH]
            pins, truth = zip(*pool.map(lambda plan: rendered_pin(showroom, plan), plans), strict=True)
            yield Rows(
                pa.RecordBatch.from_pylist(list(pins), schema=tables.PINS),
                pa.RecordBatch.from_pylist(list(truth), schema=tables.TRUTH),
            )


def pin_id(seed: int, index: int) -> str:
    return f"showroom-{seed}-{index:06d}"


def rendered_pin(showroom: Showroom, plan: PinPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """One row of tables.PINS and its row of tables.TRUTH."""
    origin = plan.index if plan.copy_of is None else plan.copy_of
    rng = np.random.default_rng([showroom.seed, 1, origin])  # a copy repeats its original's draws
    picture, view = _picture(showroom, plan, rng)
    text = _text(plan, rng)
    own = np.random.default_rng([showroom.seed, 2, plan.index])
    data = None
    if plan.defect in SPOIL:
        picture = SPOIL[plan.defect](picture, own)
    elif plan.defect == "broken_bytes":
        data, picture = broken_bytes(picture, own), Picture(picture.image, None, None)
    elif plan.defect == "empty_text":
        text = empty_text(text, own)
    elif plan.defect == "unrelated_text":
        text = unrelated_text(text, own)
    if data is None:
        data = encode_jpeg(Image.fromarray(picture.image), QUALITY)
    width, height = header(data)
    category = plan.product.category if plan.product else PLACES
    figures = engagement(category, plan.scene.words if plan.scene else None, plan.defect, own)
    pin = {
        "pin_id": pin_id(showroom.seed, plan.index),
        "image": data,
        "width": width,
        "height": height,
        "title": text.title,
        "description": text.description,
        "alt_text": text.alt_text,
        "board": text.board,
        "product_id": plan.product.product_id if plan.product else None,
        "category": category,
        "promoted": figures.promoted,
        "impressions": figures.impressions,
        "saves": figures.saves,
        "clicks": figures.clicks,
        "source": "showroom",
        "split": plan.split,
    }
    truth = {
        "pin_id": pin["pin_id"],
        "kind": plan.kind,
        "scene": plan.scene.words if plan.scene else None,
        "yaw": view.yaw if view else None,
        "pitch": view.pitch if view else None,
        "fov": view.fov if view else None,
        "box": None if picture.alpha is None else _box(picture.alpha),
        "alpha": None if picture.alpha is None else encode_png(Image.fromarray(picture.alpha)),
        "background": None if picture.background is None else encode_jpeg(Image.fromarray(picture.background), QUALITY),
        "defect": plan.defect,
        "copy_of": None if plan.copy_of is None else pin_id(showroom.seed, plan.copy_of),
    }
    return pin, truth


def _text(plan: PinPlan, rng: np.random.Generator) -> Any:
    if plan.product is None:
        assert plan.scene is not None
        return text_of_scene(plan.scene, rng)
    return text_on_white(plan.product, rng) if plan.scene is None else text_in_scene(plan.product, plan.scene, rng)


def _picture(showroom: Showroom, plan: PinPlan, rng: np.random.Generator) -> tuple[Picture, View | None]:
    if plan.scene is None:
        return _on_backdrop(plan, rng), None
    panorama = showroom.panoramas[plan.scene.file]
    background, view = background_of(panorama, plan, rng)
    if plan.product is None:
        return Picture(_bytes(background), None, None), view
    return _in_scene(plan, background, panorama.light_yaw - view.yaw, rng), view


def _in_scene(plan: PinPlan, background: Pixels, light: float, rng: np.random.Generator) -> Picture:
    """The product in front of `background`; `light` is the light's yaw relative to the camera's, degrees."""
    assert plan.product is not None
    assert plan.cutout is not None
    hangs = plan.product.hangs
    scale = rng.uniform(0.42, 0.75) if hangs else rng.uniform(0.38, 0.7)
    bottom = rng.uniform(0.5, 0.62) + scale / 2 if hangs else rng.uniform(0.84, 0.95)
    paste = fitted(
        plan.cutout,
        plan.size,
        scale,
        widest=0.72,
        center=rng.uniform(0.34, 0.66),
        bottom=min(bottom, 0.97),
        mirrored=bool(plan.cutout.mirrors and rng.random() < 0.5),
        turn=float(rng.uniform(-8, 8)) if hangs else 0.0,
    )
    right, behind = float(np.sin(np.radians(light))), float(np.cos(np.radians(light)))
    darkness = float(rng.uniform(0.45, 0.65))
    shadow = hanging_shadow(paste, right, darkness) if hangs else standing_shadow(paste, right, -behind, darkness)
    image = over(relit(paste, background, right), paste.matte, background * (1 - shadow[..., None]))
    return Picture(_bytes(image), _bytes(background), _bytes(paste.matte))


def _on_backdrop(plan: PinPlan, rng: np.random.Generator) -> Picture:
    """The product on white; scale, place, tint and turn step evenly through their ranges, so that two
    honest pins of one product do not look like copies."""
    assert plan.product is not None
    assert plan.cutout is not None
    width, height = plan.size
    steps = [plan.spread, plan.spread * 7 % 1, plan.spread * 13 % 1]
    backdrop = np.array(_BACKDROPS[int(steps[1] * len(_BACKDROPS))], dtype=np.float32) / 255
    shade = 1 - rng.uniform(0, 0.05) * np.linspace(0, 1, height, dtype=np.float32)
    background = np.broadcast_to(backdrop * shade[:, None, None], (height, width, 3)).astype(np.float32)
    scale = 0.42 + 0.46 * steps[0]
    paste = fitted(
        plan.cutout,
        plan.size,
        scale,
        widest=scale,
        center=0.25 + 0.5 * steps[2],
        bottom=min(0.97, 0.5 + scale / 2 + rng.uniform(-0.1, 0.15)),
        mirrored=bool(plan.cutout.mirrors and steps[1] < 0.5),
        turn=20 * steps[2] - 10 if plan.product.hangs else 0.0,
    )
    if plan.cutout.baked_shadow:
        image = over(paste.color, paste.soft, background)
    else:
        shadow = standing_shadow(paste, 0.3, 0.4, 0.3)
        image = over(paste.color, paste.matte, background * (1 - shadow[..., None]))
    return Picture(_bytes(image), _bytes(background), _bytes(paste.matte))


def _bytes(values: Pixels) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def _box(alpha: NDArray[np.uint8]) -> list[int]:
    rows, columns = np.flatnonzero((alpha > 127).any(1)), np.flatnonzero((alpha > 127).any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
