"""A product's image in the frame that the denoiser works in: one frame that it was trained on, or, of a long canvas, a
longer one with windows (canvas.layout.windows), which are denoised jointly (canvas.denoiser.passes.windows).

A window is an image of its own to all networks: its part of the product, its hole, its text. Windows that show little
of a product follow the background's words alone, so that they do not begin it again. They are decoded one by one, and
blended where they overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.denoiser.passes.windows import LatentPlace, compute_weight
from canvas.denoiser.sampling import Condition, Window
from canvas.inference.conditioning import (
    Background,
    build_condition,
    decode_backgrounds,
    encode_decoder_condition,
    encode_kept_pixels,
    frame_for_pipeline,
    get_frame_limits,
)
from canvas.inference.known_latents import KnownLatents
from canvas.inference.product import (
    Frame,
    FramedProduct,
    Product,
    compute_frame,
    frame_product,
    frame_product_bytes,
)
from canvas.inference.scene.borders import continue_photograph
from canvas.inference.scene.extension import know_surroundings
from canvas.layout.formats import Rectangle
from canvas.layout.spec import Layout
from canvas.layout.windows import plan_windows, spread_windows
from canvas.pins.captions import parse_caption
from canvas.pins.images import Pixels
from canvas.pins.masks import Mask
from canvas.vae.model import get_scale_factor

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.style import StylePrompt

PRODUCT_SHARE = 0.5
"""Part of the product that the window with most of it shows, from which a window follows the whole prompt."""

Features = list[torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class FramedScene:
    """What a generation begins with, and what turns its latents into backgrounds."""

    frame: Frame
    places: list[Rectangle]  # of windows in the frame, pixels; one: the whole frame
    conditions: list[Condition]  # of each
    features: list[Features | None]  # of the conditional decoder, likewise
    main: int  # the window that shows most of the product
    cell: int  # pixels on a side of a latent cell
    photograph: Pixels | None  # in the frame, where one is extended
    is_photograph: Mask | None  # where it is
    known: KnownLatents | None  # what surrounds it before it is extended

    @property
    def condition(self) -> Condition | list[Window]:
        """As a sampler takes it."""
        if len(self.places) == 1:
            return self.conditions[0]
        windows = zip(self.places, self.conditions, strict=True)
        return [Window(self._locate(place), condition) for place, condition in windows]

    @property
    def main_frame(self) -> Frame:
        """The frame of the main window as that of an image of its own."""
        place = self.places[self.main]
        return self.frame if len(self.places) == 1 else _fill_frame(place.height, place.width)

    def cut_main(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the main window's part of latents (N, C, h, w)."""
        return self._locate(self.places[self.main]).cut(latents)

    def decode(self, pipeline: CanvasPipeline, latents: torch.Tensor) -> list[Background]:
        """Decode raw latents (N, C, h, w) of the frame; ValueError if they or the images are not finite."""
        frames = [self.frame] if len(self.places) == 1 else [_fill_frame(*place.size) for place in self.places]
        parts = [
            decode_backgrounds(pipeline, self._locate(place).cut(latents), features, frame)
            for place, features, frame in zip(self.places, self.features, frames, strict=True)
        ]
        rows = [[part[row] for part in parts] for row in range(len(latents))]
        backgrounds = [row[0] if len(row) == 1 else blend_windows(self.frame, self.places, row) for row in rows]
        if self.photograph is None or self.is_photograph is None:
            return backgrounds
        return [
            replace(background, pixels=continue_photograph(background.pixels, self.photograph, self.is_photograph))
            for background in backgrounds
        ]

    def _locate(self, place: Rectangle) -> LatentPlace:
        return LatentPlace(*(length // self.cell for length in (place.top, place.left, *place.size)))


def frame_scene(
    pipeline: CanvasPipeline,
    product: Product,
    prompt: str | None,
    negative_prompt: str | None = None,
    style: StylePrompt | None = None,
    *,
    layout: Layout | None = None,
) -> FramedScene:
    """Encode what a product's image is generated from.

    Args:
        pipeline: Whose parts are used.
        product: Of the whole image.
        prompt: As the pipeline takes it, `negative_prompt` and `style`, too.
        negative_prompt: Likewise.
        style: Likewise.
        layout: That of the image; without one it is one pass, whatever its aspect is.

    Raises:
        ValueError: In one sentence, for a canvas that is too long for the model.
    """
    windows = plan_windows(product.size, pipeline.config["max_aspect"]) if layout is not None else []
    if windows[1:]:
        frame, places = frame_windows(pipeline, product.size, windows)
        whole = frame_product(product, frame)
        parts = [_cut_product(whole, place).to(pipeline.device) for place in places]
    else:
        whole = frame_for_pipeline(pipeline, product)
        frame, parts = whole.frame, [whole.to(pipeline.device)]
        places = [Rectangle(0, 0, frame.height, frame.width)]
    amounts = [float(part.mask.sum()) for part in parts]
    main = amounts.index(max(amounts))
    text = build_condition(pipeline, parts[main], prompt, negative_prompt, style)
    outer = text
    if prompt is not None and min(amounts) < PRODUCT_SHARE * amounts[main]:
        outer = build_condition(pipeline, parts[main], parse_caption(prompt)[1], negative_prompt, style)
    conditions = [text if amount >= PRODUCT_SHARE * amounts[main] else outer for amount in amounts]
    if parts[1:]:
        kept = [encode_kept_pixels(pipeline, part) for part in parts]
        conditions = [
            replace(condition, hole=hole, masked_latents=masked)
            for condition, (hole, masked) in zip(conditions, kept, strict=True)
        ]
    photograph, is_photograph, known = None, None, None
    if layout is not None and layout.keeps_photograph:
        photograph = frame_product_bytes(product, frame)[0]
        cover = frame.insert_product((product.alpha > 0).astype(np.float32))
        is_photograph = cover >= min(0.5, float(cover.max()))  # it may be less than a pixel there
        known = know_surroundings(pipeline, photograph, is_photograph)
    return FramedScene(
        frame=frame,
        places=places,
        conditions=conditions,
        features=[encode_decoder_condition(pipeline, [part]) for part in parts],
        main=main,
        cell=get_scale_factor(pipeline.vae),
        photograph=photograph,
        is_photograph=is_photograph,
        known=known,
    )


def frame_windows(
    pipeline: CanvasPipeline, size: tuple[int, int], windows: Sequence[Rectangle]
) -> tuple[Frame, list[Rectangle]]:
    """Return the frame of a long canvas of `size` (height, width), and its windows in it, pixels.

    Windows have the size of the longest frame that the denoiser was trained on, and begin at whole cells.
    """
    limits = get_frame_limits(pipeline)
    window, multiple = compute_frame(*windows[0].size, **limits), limits["multiple"]
    axis = int(size[1] > size[0])  # along which it is long
    part = (window.height, window.width)[axis]
    length = max(part, multiple * round(part * size[axis] / windows[0].size[axis] / multiple))
    starts = [multiple * start for start in spread_windows(length // multiple, part // multiple, len(windows))]
    if axis == 0:
        return _fill_frame(length, window.width), [Rectangle(start, 0, *_get_size(window)) for start in starts]
    return _fill_frame(window.height, length), [Rectangle(0, start, *_get_size(window)) for start in starts]


def blend_windows(frame: Frame, places: Sequence[Rectangle], parts: Sequence[Background]) -> Background:
    """Return the background of `frame` whose windows are `parts`: their mean, weighed as predictions are."""
    pixels = np.zeros((frame.height, frame.width, 3), np.float32)
    shift = np.zeros((frame.height, frame.width), np.float32)
    weights = np.zeros((frame.height, frame.width), np.float32)
    for place, part in zip(places, parts, strict=True):
        weight = compute_weight(*place.size).numpy()
        pixels[place.region] += weight[..., None] * part.pixels
        weights[place.region] += weight
        if part.shift is not None:
            shift[place.region] += weight * part.shift
    blended = np.clip(np.rint(pixels / weights[..., None]), 0, 255).astype(np.uint8)
    return Background(frame, blended, None if parts[0].shift is None else _divide(shift, weights))


def _divide(values: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values / weights)


def _get_size(frame: Frame) -> tuple[int, int]:
    return frame.height, frame.width


def _fill_frame(height: int, width: int) -> Frame:
    """Return a frame that the image fills."""
    return Frame(height, width, 0, 0, height, width)


def _cut_product(whole: FramedProduct, place: Rectangle) -> FramedProduct:
    """Return a window's part of a product in a long frame."""
    rows, columns = place.region
    pixels, mask, alpha = (part[..., rows, columns] for part in (whole.pixels, whole.mask, whole.alpha))
    return FramedProduct(_fill_frame(*place.size), pixels, mask, alpha)
