"""What the parts of the bench share: the model, held-out pins, their products, and summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.inference.batch import fit_prompt
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins import tables
from canvas.pins.masks import Mask, compute_box
from canvas.pins.products import ProductPin, load_product_pins
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec
from evaluation.statistics.intervals import bootstrap_mean
from lifecycle.declare.params import load_sections

TABLES = ("pins", "kept", "masks", "captions")
MARGIN = 4
"""Pixels round a product that its cut-out keeps."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """A generator, and held-out pins."""

    root: Path
    pipeline: CanvasPipeline
    segmenter: Segmenter
    edges: EdgeSpec
    pins: list[ProductPin]  # of held-out products first
    backgrounds: list[str]  # to ask for

    def get_background(self, number: int) -> str:
        """Return the background of the image of that number: all in turn."""
        return self.backgrounds[number % len(self.backgrounds)]

    def write_prompt(self, pin: ProductPin, background: str | None = None) -> str:
        """Return the prompt of a pin's product before its own background, or another."""
        return fit_prompt(self.pipeline, pin.product, pin.background if background is None else background)


def load_subjects(root: Path, count: int) -> Subjects:
    """Load the model of a full run below `root`, and at most `count` held-out pins."""
    pipeline = CanvasPipeline.from_pretrained(root / "models" / "canvas")
    pipeline.merge_lora()
    pipeline.set_progress_bar_config(disable=True)
    paths = [root / "artifacts" / name for name in TABLES]
    pins = load_product_pins(*paths, splits=("unseen_product", "unseen_both"), count=count)
    if len(pins) < count:
        pin_ids = {pin.pin_id for pin in pins}
        more = load_product_pins(*paths, splits=tables.HELD_OUT_SPLITS, count=2 * count)
        pins += [pin for pin in more if pin.pin_id not in pin_ids][: count - len(pins)]
    edges = EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"])
    segmenter = Segmenter(pipeline.segmenter, pipeline.segmenter_processor).eval()
    return Subjects(root, pipeline, segmenter, edges, pins, load_sections("demo", root)["backgrounds"]["prompts"])


def cut_out(pin: ProductPin) -> Image.Image:
    """Return a pin's product as an RGBA cut-out with a little room round it."""
    left, top, right, bottom = compute_box(pin.mask)
    whole = pin.image.convert("RGBA")
    whole.putalpha(encode_mask(pin.mask))
    return whole.crop((max(0, left - MARGIN), max(0, top - MARGIN), right + MARGIN, bottom + MARGIN))


def encode_mask(mask: Mask) -> Image.Image:
    """Return a mask as an image, 255 where it is True."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


def choose_distinct(pins: Sequence[ProductPin], count: int, rng: np.random.Generator) -> list[ProductPin]:
    """Draw pins of `count` different products."""
    by_product = {pin.product_id or pin.pin_id: pin for pin in (pins[place] for place in rng.permutation(len(pins)))}
    return list(by_product.values())[:count]


def summarize(values: Sequence[float]) -> list[float]:
    """Return the mean and both ends of its interval."""
    interval = bootstrap_mean(list(values))
    return [round(value, 4) for value in (interval.mean, interval.low, interval.high)]
