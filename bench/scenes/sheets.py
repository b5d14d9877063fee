"""Sheets of what modes, sizes, formats and several products look like, as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.scenes.subjects import Subjects, choose_distinct, cut_out
from canvas.layout.spec import build_layout
from canvas.pins.images import draw_contact_sheet
from canvas.pins.products import ProductPin

ROWS = 4
FORMATS = {"story 9:16": "288x512", "pin 2:3": "320x480", "square": "384x384", "banner 3:1": "576x192"}
CELL = 192

Cells = Sequence[tuple[str, Image.Image]]


def write_sheets(subjects: Subjects, folder: Path) -> list[str]:
    """Write every sheet that the model can make; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    draws: Mapping[str, Callable[[Subjects, int], Cells]] = {
        "modes": draw_modes,
        "sizes": draw_sizes,
        "formats": draw_formats,
        "products": draw_products,
    }
    paths = []
    for name, draw in draws.items():
        rows = [list(draw(subjects, number)) for number in range(ROWS)]
        if not rows[0]:
            continue
        cells = [cell for row in rows for cell in row]
        sheet = draw_contact_sheet([image for _, image in cells], [label for label, _ in cells], len(rows[0]), CELL)
        sheet.save(folder / f"{name}.png")
        paths.append(str(folder / f"{name}.png"))
    return paths


def draw_modes(subjects: Subjects, number: int) -> Cells:
    """One product: hard, soft, and with its shadow, as the model has networks for them."""
    pin, pipeline = _choose_pin(subjects, number), subjects.pipeline
    settings: dict[str, Any] = {"seed": number, "layout": build_layout("256x256", place="bottom", scale=0.7)}
    modes: dict[str, dict[str, Any]] = {"hard": {}}
    if pipeline.light is not None:
        modes["soft"] = {"mode": "soft"}
    if getattr(pipeline, "shadow", None) is not None:
        modes["hard and shadow"] = {"shadow": 1.0}
        if pipeline.light is not None:
            modes["soft and shadow"] = {"mode": "soft", "shadow": 1.0}
    if len(modes) == 1:
        return []
    return [("product", cut_out(pin))] + [
        (name, pipeline(cut_out(pin), _prompt(subjects, pin, number), **settings | mode).images[0])
        for name, mode in modes.items()
    ]


def draw_sizes(subjects: Subjects, number: int) -> Cells:
    """One product before a background of the model's size, resized by a cubic filter, and enlarged by the upscaler."""
    if subjects.pipeline.upscaler is None:
        return []
    pin = _choose_pin(subjects, number)
    settings: dict[str, Any] = {"seed": number, "layout": build_layout("512x512", place="bottom", scale=0.6)}
    factors = {"128 px, cubic": 1, "enlarged 2 x": 2, "enlarged 4 x": 4}
    return [
        (name, subjects.pipeline(cut_out(pin), _prompt(subjects, pin, number), upscale=factor, **settings).images[0])
        for name, factor in factors.items()
    ]


def draw_formats(subjects: Subjects, number: int) -> Cells:
    """One product on canvases of several aspects."""
    pin = _choose_pin(subjects, number)
    return [
        (
            name,
            subjects.pipeline(
                cut_out(pin),
                _prompt(subjects, pin, number),
                seed=number,
                layout=build_layout(canvas, place="bottom", scale=0.6),
            ).images[0],
        )
        for name, canvas in FORMATS.items()
    ]


def draw_products(subjects: Subjects, number: int) -> Cells:
    """One, two and three products in one scene."""
    pins = choose_distinct(subjects.pins, 3, np.random.default_rng(number))
    background, cells = subjects.get_background(number), []
    for count in (1, 2, 3):
        products = [cut_out(pin) for pin in pins[:count]]
        heights = [1.0, 0.8, 0.9][:count]
        layout = build_layout("288x192", layout="row", scale=0.8, heights=heights)
        image = subjects.pipeline(products, f"products, {background}", seed=number, layout=layout).images[0]
        cells.append((f"{count} products" if count > 1 else "1 product", image))
    return cells


def _choose_pin(subjects: Subjects, number: int) -> ProductPin:
    return choose_distinct(subjects.pins, ROWS, np.random.default_rng(7))[number]


def _prompt(subjects: Subjects, pin: ProductPin, number: int) -> str:
    return subjects.write_prompt(pin, subjects.get_background(number))
