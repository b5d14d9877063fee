"""From plans to rows: rendering is a pure function of seed and plan, so threads do not change a byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageColor
from tqdm import tqdm

from canvas.light.gain import FloatPixels
from canvas.pins import tables
from canvas.pins.images import Pixels, encode_jpeg, encode_png, read_image_size
from canvas.pins.masks import compute_box
from canvas.sources.showroom.camera import CameraView, Panorama, load_panorama
from canvas.sources.showroom.compositing import (
    Paste,
    composite_over,
    measure_light,
    place_cutout,
    relight_product,
    render_hanging_shadow,
    render_standing_shadow,
)
from canvas.sources.showroom.defects import IMAGE_DEFECTS, RenderedImage, make_broken_bytes
from canvas.sources.showroom.engagement import sample_engagement
from canvas.sources.showroom.plan import PinPlan, plan_pins
from canvas.sources.showroom.products import load_products
from canvas.sources.showroom.spec import SCENES, ShowroomSpec
from canvas.sources.showroom.texts import compose_text, erase_text, substitute_text
from canvas.sources.showroom.views import ATTEMPTS, render_background

BATCH_SIZE = 64
JPEG_QUALITY = 92
PLACES_CATEGORY = "Places"
"""Category of a pin without a product."""

_BACKDROPS = ("#ffffff", "#faf9f6", "#f4f6f8", "#f7f1ec", "#eef3ee", "#f0eef6", "#f6f6f6", "#f9f5f0")
"""White and its neighbours."""


@dataclass(frozen=True, slots=True)
class Showroom:
    """Everything that rendering reads."""

    seed: int
    plans: list[PinPlan]
    panoramas: dict[str, Panorama]


def load_showroom(folder: Path, spec: ShowroomSpec, seed: int) -> Showroom:
    """Load the package files in `folder` (data/showroom) and plan the pins; `ValueError` if a file is missing."""
    return Showroom(seed, plan_pins(spec, seed, load_products(folder)), load_panoramas(folder))


def load_panoramas(folder: Path) -> dict[str, Panorama]:
    """Load every scene's panorama by its file's name; `ValueError` if one is missing."""
    return {scene.file: load_panorama(folder / "scenes" / f"{scene.file}_1k.jpg") for scene in SCENES}


def render_pins(showroom: Showroom, threads: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Render all pins (tables.PINS) and, row by row, their truth (tables.TRUTH), in order, on `threads` threads. Yields
    BATCH_SIZE rows at a time; two batches are in memory at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(showroom.plans), BATCH_SIZE):
            plans = showroom.plans[start : start + BATCH_SIZE]
            pins, truth = zip(*pool.map(lambda plan: render_pin(showroom, plan), plans), strict=True)
            yield pa.Table.from_pylist(pins, tables.PINS), pa.Table.from_pylist(truth, tables.TRUTH)


def write_showroom(folder: Path, spec: ShowroomSpec, seed: int, threads: int, pins: Path, truth: Path) -> None:
    """Render the showroom over the package files in `folder`, and write its pins and their truth."""
    showroom = load_showroom(folder, spec, seed)
    with (
        tables.Writer(pins, tables.PINS) as pin_rows,
        tables.Writer(truth, tables.TRUTH) as truth_rows,
        tqdm(total=spec.pins, desc="render", unit="pin") as bar,
    ):
        for rows in render_pins(showroom, threads):
            pin_rows.add(rows[0])
            truth_rows.add(rows[1])
            bar.update(rows[0].num_rows)


def render_pin(showroom: Showroom, plan: PinPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Render one row of tables.PINS and its row of tables.TRUTH."""
    name = f"showroom-{showroom.seed}-{{:06d}}"
    origin = plan.index if plan.copy_of is None else plan.copy_of
    rng = np.random.default_rng([showroom.seed, 1, origin])  # a copy repeats its original's draws
    rendered, view = render_image(showroom.panoramas, plan, rng)
    text = compose_text(plan.product, plan.scene, rng)
    pin_rng = np.random.default_rng([showroom.seed, 2, plan.index])
    data = None
    if plan.defect in IMAGE_DEFECTS:
        rendered = IMAGE_DEFECTS[plan.defect](rendered, pin_rng)
    elif plan.defect == "broken_bytes":
        data, rendered = make_broken_bytes(rendered, pin_rng), RenderedImage(rendered.image)
    elif plan.defect == "empty_text":
        text = erase_text(text, pin_rng)
    elif plan.defect == "unrelated_text":
        text = substitute_text(text, pin_rng)
    if data is None:
        data = encode_jpeg(Image.fromarray(rendered.image), JPEG_QUALITY)
    width, height = read_image_size(data)
    category = plan.product.category if plan.product else PLACES_CATEGORY
    scene = plan.scene.words if plan.scene else None
    pin = {
        "pin_id": name.format(plan.index),
        "image": data,
        "width": width,
        "height": height,
        **asdict(text),
        "product_id": plan.product.product_id if plan.product else None,
        "category": category,
        **asdict(sample_engagement(category, scene, plan.defect, pin_rng)),
        "source": "showroom",
        "split": plan.split,
    }
    alpha, before = rendered.alpha, rendered.background
    gain, shadow = (None, None) if plan.defect in IMAGE_DEFECTS else (rendered.log_gain, rendered.shadow)
    truth = {
        "pin_id": pin["pin_id"],
        "kind": plan.kind,
        "scene": scene,
        "yaw": view.yaw if view else None,
        "pitch": view.pitch if view else None,
        "fov": view.fov if view else None,
        "box": None if alpha is None else compute_box(alpha > 127),
        "alpha": None if alpha is None else encode_png(Image.fromarray(alpha)),
        "background": None if before is None else encode_jpeg(Image.fromarray(before), JPEG_QUALITY),
        "log_gain": None if gain is None else gain.ravel().tolist(),
        "shadow": None if shadow is None else encode_png(Image.fromarray(shadow)),
        "defect": plan.defect,
        "copy_of": None if plan.copy_of is None else name.format(plan.copy_of),
    }
    return pin, truth


def render_image(
    panoramas: Mapping[str, Panorama], plan: PinPlan, rng: np.random.Generator, attempts: int = ATTEMPTS
) -> tuple[RenderedImage, CameraView | None]:
    """Render what the plan shows, before any defect, and return the view of its scene; None: there is no scene.

    Args:
        attempts: Views that are tried, as `render_background` does.
    """
    if plan.scene is None:
        return _render_on_backdrop(plan, rng), None
    panorama = panoramas[plan.scene.file]
    background, view = render_background(panorama, plan, rng, attempts)
    if plan.product is None:
        return RenderedImage(_quantize_pixels(background)), view
    return _render_in_scene(plan, background, panorama.light_yaw - view.yaw, rng), view


def _render_in_scene(plan: PinPlan, background: FloatPixels, light: float, rng: np.random.Generator) -> RenderedImage:
    """Render the product in front of `background`; `light` is the light's yaw relative to the camera's, degrees."""
    assert plan.product is not None
    assert plan.cutout is not None
    hangs = plan.product.hangs
    scale = rng.uniform(0.42, 0.75) if hangs else rng.uniform(0.38, 0.7)
    bottom = rng.uniform(0.5, 0.62) + scale / 2 if hangs else rng.uniform(0.84, 0.95)
    paste = place_cutout(
        plan.cutout,
        plan.size,
        scale,
        widest=0.72,
        center=rng.uniform(0.34, 0.66),
        bottom=min(bottom, 0.97),
        mirrored=bool(plan.cutout.source.mirrors and rng.random() < 0.5),
        turn=float(rng.uniform(-8, 8)) if hangs else 0.0,
    )
    right, behind = float(np.sin(np.radians(light))), float(np.cos(np.radians(light)))
    darkness = float(rng.uniform(0.45, 0.65))
    if hangs:
        shadow = render_hanging_shadow(paste, right, darkness)
    else:
        shadow = render_standing_shadow(paste, right, -behind, darkness)
    scene = measure_light(background, right)
    image = composite_over(relight_product(paste, scene), paste.matte, background * (1 - shadow[..., None]))
    layers = _quantize_layers(image, background, paste)
    return replace(layers, log_gain=scene.compute_log_gain(paste.box), shadow=_quantize_pixels(shadow))


def _render_on_backdrop(plan: PinPlan, rng: np.random.Generator) -> RenderedImage:
    """Render the product on white. Scale, place, tint and turn step evenly through their ranges, so that two honest
    pins of one product do not look like copies."""
    assert plan.product is not None
    assert plan.cutout is not None
    width, height = plan.size
    steps = [plan.spread, plan.spread * 7 % 1, plan.spread * 13 % 1]
    backdrop = np.array(ImageColor.getrgb(_BACKDROPS[int(steps[1] * len(_BACKDROPS))]), dtype=np.float32) / 255
    shade = 1 - rng.uniform(0, 0.05) * np.linspace(0, 1, height, dtype=np.float32)
    background = np.broadcast_to(backdrop * shade[:, None, None], (height, width, 3)).astype(np.float32)
    scale = 0.42 + 0.46 * steps[0]
    paste = place_cutout(
        plan.cutout,
        plan.size,
        scale,
        widest=scale,
        center=0.25 + 0.5 * steps[2],
        bottom=min(0.97, 0.5 + scale / 2 + rng.uniform(-0.1, 0.15)),
        mirrored=bool(plan.cutout.source.mirrors and steps[1] < 0.5),
        turn=20 * steps[2] - 10 if plan.product.hangs else 0.0,
    )
    if plan.cutout.source.baked_shadow:
        image = composite_over(paste.color, paste.soft, background)
    else:
        shadow = render_standing_shadow(paste, 0.3, 0.4, 0.3)
        image = composite_over(paste.color, paste.matte, background * (1 - shadow[..., None]))
    return _quantize_layers(image, background, paste)


def _quantize_layers(image: FloatPixels, background: FloatPixels, paste: Paste) -> RenderedImage:
    return RenderedImage(_quantize_pixels(image), _quantize_pixels(background), _quantize_pixels(paste.matte))


def _quantize_pixels(values: FloatPixels) -> Pixels:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
