"""What the generator is asked for, in families of slices: modes, sizes, formats, numbers of products.

All slices of a family have the same products, prompts and seeds, so that a row of its sheet differs in one thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from canvas.layout.spec import Layout, build_layout
from canvas.pins.fallbacks import Notes
from evaluation.scenes.spec import SceneEvaluationSpec
from evaluation.scenes.subjects import Subjects, choose_distinct, cut_out, draw_mask

MODES: Mapping[str, Mapping[str, Any]] = {
    "hard": {},
    "soft": {"mode": "soft"},
    "shadow": {"shadow": 1.0},
    "soft_shadow": {"mode": "soft", "shadow": 1.0},
    "reflection": {"reflection": 0.5},
}
"""Mode -> what the pipeline is given for it."""

NETWORKS: Mapping[str, str] = {"mode": "light", "shadow": "shadow"}
"""Setting -> the part of the pipeline that it needs."""

SIZES: Mapping[str, int] = {"cubic": 1, "2x": 2, "4x": 4}
"""Size -> factor of the upscaler; the rest of the way is a cubic filter's."""

NO_UPSCALER = "the generator has no upscaler, so no sizes were compared"

MOST_PRODUCTS = 3
"""Products of the fullest scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneRequest:
    """One image to generate."""

    images: list[Image.Image]  # of its products
    masks: list[Image.Image | None]  # of each; None: it is a cut-out
    prompt: str
    background: str  # in the prompt
    seed: int
    group: str  # of images that depend on one another: they have the same products
    layout: Layout | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # further ones of the pipeline

    @property
    def is_soft(self) -> bool:
        """Whether its image has a certificate."""
        return self.settings.get("mode") == "soft"


Family = Mapping[str, Sequence[SceneRequest]]
"""Slice -> its requests; requests at the same place belong together."""


def build_families(subjects: Subjects, spec: SceneEvaluationSpec, side: int, notes: Notes) -> dict[str, Family]:
    """Return the families "mode", "size", "format" and "products"; what the generator lacks goes to `notes`.

    Args:
        subjects: As many pins as `spec` has products.
        spec: How many, and on which canvases.
        side: Pixels of the model's frame.
        notes: Of the stage.
    """
    return {
        "mode": build_modes(subjects, spec.seed, notes),
        "size": build_sizes(subjects, spec.seed, spec.sheet_rows, side, notes),
        "format": build_formats(subjects, spec.seed, spec.formats),
        "products": build_groups(subjects, spec.seed, spec.scenes, spec.canvas),
    }


def build_modes(subjects: Subjects, seed: int, notes: Notes) -> Family:
    """Return every pin, its product where it stands, in each mode that the generator has the networks for."""
    hard = [
        replace(request, images=[pin.image], masks=[draw_mask(pin.mask)])
        for request, pin in zip(_request_cutouts(subjects, seed), subjects.pins, strict=True)
    ]
    family = {}
    for name, settings in MODES.items():
        missing = list_missing_networks(subjects.pipeline, settings)
        if missing:
            notes.add(f"the generator has no network of {' and '.join(missing)}, so mode {name} was not tried")
        else:
            family[name] = [replace(request, settings=settings) for request in hard]
    return family


def list_missing_networks(pipeline: CanvasPipeline, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts that these settings need and the pipeline does not have."""
    needed = [NETWORKS[setting] for setting in settings if setting in NETWORKS]
    return [name for name in needed if getattr(pipeline, name) is None]


def build_sizes(subjects: Subjects, seed: int, rows: int, side: int, notes: Notes) -> Family:
    """Return the first products on a canvas of four times the model's frame, enlarged by each factor; {} where the
    generator has no upscaler. They are as few as the sheet shows: each image is large."""
    if subjects.pipeline.upscaler is None:
        notes.add(NO_UPSCALER)
        return {}
    layout = build_layout(f"{4 * side}x{4 * side}", place="bottom", scale=0.6)
    plain = [replace(request, layout=layout) for request in _request_cutouts(subjects, seed)[:rows]]
    return {
        name: [replace(request, settings={"upscale": factor}) for request in plain] for name, factor in SIZES.items()
    }


def build_formats(subjects: Subjects, seed: int, formats: Mapping[str, str]) -> Family:
    """Return every product on each canvas."""
    plain, family = _request_cutouts(subjects, seed), {}
    for name, canvas in formats.items():
        layout = build_layout(canvas, place="bottom", scale=0.6)
        family[name] = [replace(request, layout=layout) for request in plain]
    return family


def build_groups(subjects: Subjects, seed: int, scenes: int, canvas: str) -> Family:
    """Return scenes of one product, the same with a second, and with a third; of as many as there are different."""
    family: dict[str, list[SceneRequest]] = {}
    layout = build_layout(canvas, layout="row", scale=0.8)
    for number in range(scenes):
        background = subjects.get_background(number)
        pins = choose_distinct(subjects.pins, MOST_PRODUCTS, np.random.default_rng([seed, number]))
        for count in range(1, len(pins) + 1):
            request = SceneRequest(
                images=[cut_out(pin) for pin in pins[:count]],
                masks=[None] * count,
                prompt=subjects.write_prompt(pins[:count], background),
                background=background,
                seed=seed + number,
                group=f"scene {number}",
                layout=layout,
            )
            family.setdefault(str(count), []).append(request)
    return family


def _request_cutouts(subjects: Subjects, seed: int) -> list[SceneRequest]:
    """Return each product before a background of its own and at a seed of its own; its canvas is still to be given."""
    return [
        SceneRequest(
            images=[cut_out(pin)],
            masks=[None],
            prompt=subjects.write_prompt([pin], background),
            background=background,
            seed=seed + number,
            group=pin.product_id or pin.pin_id,
        )
        for number, pin in enumerate(subjects.pins)
        for background in [subjects.get_background(number)]
    ]
