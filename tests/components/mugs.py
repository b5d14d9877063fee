"""A catalogue of 18 painted pins, and the truth of it: squares ("mugs") before two plain scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import encode_png
from canvas.pins.masks import encode_alpha
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Input, Output, Scratch, Stage

SCENES = {"forest": ("in a forest", (20, 90, 30)), "lobby": ("in a lobby", (150, 130, 120))}
ROOT = Path(__file__).parents[2]
FILES = {"metrics": "metrics.json", "losses": "losses.csv", "sheet": "sheet.png"}
"""Outputs of a stage that are files -> their names; all others are directories of their argument's name."""


class Log:
    """Keeps what a stage tells its run's record."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.pictures: list[str] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        assert np.isfinite(list(values.values())).all()
        self.steps.append(step)

    def image(self, name: str, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.pictures.append(name)


def write_catalogue(folder: Path, *, truth: bool = True) -> None:
    """Tables pins, truth and kept in `folder`: every third pin is a view alone; the last is broken and dropped."""
    pins, truths, kept = [], [], []
    rng = np.random.default_rng(0)
    for index in range(18):
        scene = list(SCENES)[index % 2]
        place, colour = SCENES[scene]
        height, width = 60 + index, 70
        background = np.clip(np.array(colour) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
        alpha = np.zeros((height, width), np.float32)
        image = background.copy()
        if has_product := index % 3 > 0:
            left = 10 + index
            alpha[15:45, left : left + 30] = 1
            image[alpha > 0] = (220, 40, 40)
            shadow = np.zeros_like(alpha)
            shadow[40:52, left - 5 : left + 35] = 0.4
        row: dict[str, Any] = dict.fromkeys(tables.PINS.names)
        row |= {
            "pin_id": f"p{index:02d}",
            "image": b"broken" if index == 17 else encode_png(Image.fromarray(image)),
            "width": width,
            "height": height,
            "title": "" if index == 4 else f"Title {index}",
            "description": "A  mug\nto drink from",
            "alt_text": f"Red Mug {place}" if has_product else f"View of {place.removeprefix('in ')}",
            "category": "Mugs" if has_product else "Places",
            "split": "train" if index < 12 else ("unseen_view", "unseen_product")[index % 2],
        }
        pins.append(row)
        truths.append(
            dict.fromkeys(tables.TRUTH.names)
            | {
                "pin_id": row["pin_id"],
                "kind": "in_scene" if has_product else "scene",
                "scene": scene,
                "alpha": encode_alpha(alpha) if has_product else None,
                "background": encode_png(Image.fromarray(background)) if has_product else None,
                "box": [left, 15, left + 30, 45] if has_product else None,
                "log_gain": [0.1 if index % 2 else -0.1] * 192 if has_product else None,
                "shadow": encode_alpha(shadow) if has_product else None,
            }
        )
        kept.append(dict.fromkeys(tables.KEPT.names) | {"pin_id": row["pin_id"], "kept": index != 17})
    tables.write(folder / "pins", [pa.Table.from_pylist(pins, tables.PINS)], tables.PINS)
    tables.write(folder / "kept", [pa.Table.from_pylist(kept, tables.KEPT)], tables.KEPT)
    known = [pa.Table.from_pylist(truths, tables.TRUTH)] if truth else []
    tables.write(folder / "truth", known, tables.TRUTH)


def tiny(stage: Stage[Any], section: str | None = None, **changes: object) -> dict[str, Any]:
    """The stage's params of profile tiny, with `changes` merged into `section`."""
    return read_stage_params(stage, merge_sections(load_sections("tiny", ROOT), {section or stage.name: changes}))


def run_tiny(stage: Stage[Any], folder: Path, out: Path, log: Log | None = None, **changes: object) -> dict[str, Any]:
    """Run a stage with the params of profile tiny, `changes` merged into its section; return its metrics.

    Its inputs stand in `folder` by its arguments' names, its outputs go to the new folder `out`.
    """
    out.mkdir()
    ends: dict[str, Any] = {name: Input(folder / name) for name in stage.inputs}
    ends |= {name: Output(out / FILES.get(name, name)) for name in stage.outputs}
    ends |= {} if stage.log is None else {stage.log: log or Log()}
    ends |= {} if stage.scratch is None else {stage.scratch: Scratch(out / "scratch")}
    stage(**tiny(stage, **changes), **ends)
    return dict(json.loads((out / FILES["metrics"]).read_text()))
