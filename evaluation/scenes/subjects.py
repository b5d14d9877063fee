"""Whose images are generated: the model, held-out pins, their cut-outs and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from canvas.inference.batch import fit_prompt
from canvas.inference.pipeline import CanvasPipeline
from canvas.pins.masks import Mask, compute_box
from canvas.pins.products import ProductPin
from canvas.segmenter.model import Segmenter
from canvas.segmenter.spec import EdgeSpec

MARGIN = 4
"""Pixels round a product that its cut-out keeps."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """A generator, and held-out pins."""

    pipeline: CanvasPipeline
    segmenter: Segmenter
    edges: EdgeSpec
    pins: Sequence[ProductPin]
    backgrounds: Sequence[str]  # to ask for

    @classmethod
    def of_pipeline(cls, pipeline: CanvasPipeline, pins: Sequence[ProductPin], backgrounds: Sequence[str]) -> Subjects:
        """Return the subjects of a pipeline with a segmenter; its LoRAs are merged and its progress bars are off."""
        pipeline.merge_lora()
        pipeline.set_progress_bar_config(disable=True)
        edges = EdgeSpec(radius=pipeline.config["edge_radius"], epsilon=pipeline.config["edge_epsilon"])
        segmenter = Segmenter(pipeline.segmenter, pipeline.segmenter_processor).eval()
        return cls(pipeline, segmenter, edges, pins, backgrounds)

    def get_background(self, number: int) -> str:
        """Return the background of the image of that number: all in turn."""
        return self.backgrounds[number % len(self.backgrounds)]

    def write_prompt(self, pins: Sequence[ProductPin], background: str) -> str:
        """Return the prompt of one pin's product, or of several, before a background, cut to what is read of it."""
        return fit_prompt(self.pipeline, " and ".join(pin.product for pin in pins), background)


def cut_out(pin: ProductPin) -> Image.Image:
    """Return a pin's product as an RGBA cut-out with a little room round it."""
    left, top, right, bottom = compute_box(pin.mask)
    whole = pin.image.convert("RGBA")
    whole.putalpha(draw_mask(pin.mask))
    return whole.crop((max(0, left - MARGIN), max(0, top - MARGIN), right + MARGIN, bottom + MARGIN))


def draw_mask(mask: Mask) -> Image.Image:
    """Return a mask as an image, 255 where it is True."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


def choose_distinct(pins: Sequence[ProductPin], count: int, rng: np.random.Generator) -> list[ProductPin]:
    """Draw pins of `count` different products, of fewer where there are no more."""
    by_product = {pin.product_id or pin.pin_id: pin for pin in (pins[place] for place in rng.permutation(len(pins)))}
    return list(by_product.values())[:count]
