"""A closer frame for a product that is small in its image: its neighbourhood is generated once more, larger.

The whole background comes first, as for every product. Then a window round the product becomes the model's image, in
which the product has a size that the denoiser was trained on. The background that is there gets noise and is denoised
again (SDEdit, Meng et al. 2022), so it gains detail and keeps its forms: less and less towards the window's border
(Differential Diffusion, Levin and Fried 2023), where it stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.denoiser.sampling import Condition, LatentSampler, OnStep
from canvas.inference.conditioning import (
    Background,
    decode_backgrounds,
    encode_decoder_condition,
    encode_kept_pixels,
)
from canvas.inference.known_latents import KnownLatents, encode_known
from canvas.inference.product import Frame, FramedProduct, Product, frame_product, lay_product, select_band
from canvas.pins.images import Pixels, iterate_strips
from canvas.upscaler.loading import AnyUpscaler

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

V = TypeVar("V", np.uint8, np.float32)

SMALL_SHARE = 0.1
"""Longest side of a product over the frame's, below which it is framed closer. Products of less than 0.1 * 0.1 of
their image teach no product masks (`mask.limits.min_area`)."""
CLOSE_SHARE = 0.3
"""The same in the closer frame."""
STRENGTH = 0.3
"""Share of the steps, the last ones, in which the background next to the product is denoised again."""
FADE_SHARE = 0.3
"""Width over which that share falls to 0 at the window's border, over the frame's shorter side."""


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A window of the product image, and the closer frame that shows it; pixels."""

    top: int
    left: int
    height: int
    width: int
    inner_sides: tuple[bool, bool, bool, bool]  # top, bottom, left, right: does background lie beyond it?
    frame: Frame

    def crop(self, values: NDArray[V]) -> NDArray[V]:
        """Return the window of `values` (H, W, ...), of the product image's size."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def compute_weight(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the weight of what is new in the window at height x width: 0 at its inner sides, 1 further in."""
        fade = FADE_SHARE * min(self.frame.height, self.frame.width)
        top, bottom, left, right = (0.0 if inner else np.inf for inner in self.inner_sides)
        rows = (np.arange(height, dtype=np.float32) + 0.5) * self.frame.height / height
        columns = (np.arange(width, dtype=np.float32) + 0.5) * self.frame.width / width
        vertical = np.minimum(rows + top, self.frame.height - rows + bottom)
        horizontal = np.minimum(columns + left, self.frame.width - columns + right)
        share = np.clip(np.minimum.outer(vertical, horizontal) / fade, 0, 1)
        return (share**2 * (3 - 2 * share)).astype(np.float32)


def find_close_up(product: Product, frame: Frame) -> CloseUp | None:
    """Return the window round a product that is small in `frame`; None: it is not, or no closer frame shows more."""
    height, width = product.size
    inside = product.alpha >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    filling = max(box[0] / frame.height, box[1] / frame.width)  # pixels of the image in one of the frame
    whole = min(height / frame.inner_height, width / frame.inner_width)
    if filling >= SMALL_SHARE * whole:
        return None
    scale = min(max(filling / CLOSE_SHARE, 1.0), height / frame.height, width / frame.width)
    if not filling <= scale < whole:  # of a very long image no window may hold the product
        return None
    size = round(frame.height * scale), round(frame.width * scale)
    middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    top = min(max(0, round(middle[0] - size[0] / 2)), height - size[0])
    left = min(max(0, round(middle[1] - size[1] / 2)), width - size[1])
    return CloseUp(
        top,
        left,
        *size,
        inner_sides=(top > 0, top + size[0] < height, left > 0, left + size[1] < width),
        frame=Frame(frame.height, frame.width, 0, 0, frame.height, frame.width),
    )


@dataclass(frozen=True, slots=True)
class CloseUpBackground:
    """A background with the product's neighbourhood generated again."""

    whole: Background
    close_up: CloseUp
    window: Background

    def upscale(self, upscaler: AnyUpscaler, product: Product, factor: int | None) -> CloseUpBackground:
        """Return it with both frames larger, as `Background.upscale`; each needs a factor of its own."""
        return replace(
            self,
            whole=self.whole.upscale(upscaler, product, factor),
            window=self.window.upscale(upscaler, _crop_product(product, self.close_up), factor),
        )

    def composite(self, product: Product) -> Pixels:
        """Return an image of the product image's size, with the product on it, untouched on its core."""
        band_shift = self._blend_shift(product)
        pixels = self.whole.enlarge_pixels(*product.size)
        height, width = self.close_up.height, self.close_up.width
        closer, outer = self.window.enlarge_pixels(height, width), self.close_up.crop(pixels)
        weight = self.close_up.compute_weight(height, width)
        for rows in iterate_strips(height, width):
            share = weight[rows][..., None]
            outer[rows] = np.rint(share * closer[rows] + (1 - share) * outer[rows])
        lay_product(pixels, product, band_shift)
        return pixels

    def _blend_shift(self, product: Product) -> NDArray[np.float32] | None:
        """Return the shift of both frames in the product's band."""
        shift = self.whole.enlarge_shift(*product.size)
        if shift is None:
            return None
        height, width = self.close_up.height, self.close_up.width
        closer = self.window.enlarge_shift(height, width)
        if closer is not None:
            weight, outer = self.close_up.compute_weight(height, width), self.close_up.crop(shift)
            outer[:] = weight * closer + (1 - weight) * outer
        return select_band(product, shift)


def upscale_backgrounds(
    pipeline: CanvasPipeline,
    backgrounds: Sequence[Background | CloseUpBackground],
    products: Sequence[Product],
    factor: int | None = None,
) -> list[Background | CloseUpBackground]:
    """Return N backgrounds of N products enlarged by the pipeline's upscaler; as they are where it has none.

    `factor` None: each as far as its product image has pixels for.
    """
    if pipeline.upscaler is None:
        return list(backgrounds)
    pairs = zip(backgrounds, products, strict=True)
    return [background.upscale(pipeline.upscaler, product, factor) for background, product in pairs]


def add_close_ups(
    pipeline: CanvasPipeline,
    sampler: LatentSampler,
    condition: Condition,
    noise: torch.Tensor,
    backgrounds: Sequence[Background],
    products: Sequence[Product],
    close_ups: Sequence[CloseUp | None],
    *,
    on_step: OnStep | None = None,
) -> list[Background | CloseUpBackground]:
    """Return backgrounds whose neighbourhood of the product was generated again, of those that have a close-up.

    Args:
        pipeline: Whose parts are used.
        sampler: Of its denoiser.
        condition: Of the N products in one frame, or of one for all: its text and style hold here, too.
        noise: Unit noise (N, C, h, w) in that frame.
        backgrounds: Of the whole frame, N.
        products: N.
        close_ups: N, by `find_close_up`.
        on_step: As the sampler takes it.
    """
    rows = [row for row, close_up in enumerate(close_ups) if close_up is not None]
    chosen = [(backgrounds[row], products[row], close_up) for row in rows if (close_up := close_ups[row]) is not None]
    if not chosen:
        return list(backgrounds)
    frame = chosen[0][2].frame
    framed = [_frame_product(product, close_up).to(pipeline.device) for _, product, close_up in chosen]
    holes, kept = zip(*(encode_kept_pixels(pipeline, member) for member in framed), strict=True)
    before = torch.cat([_encode_window(pipeline, *member) for member in chosen])
    size = before.shape[-2:]
    weights = np.stack([close_up.compute_weight(*size) for _, _, close_up in chosen])
    strengths = STRENGTH * torch.from_numpy(weights)[:, None].to(before)
    unit_noise = noise[rows]
    keep_background = KnownLatents(before, strengths).hold(sampler.scheduler, lambda: unit_noise, on_step)
    closer_condition = replace(_select_rows(condition, rows), hole=torch.cat(holes), masked_latents=torch.cat(kept))
    latents = sampler.sample(unit_noise, closer_condition, on_step=keep_background)
    windows = decode_backgrounds(pipeline, latents, encode_decoder_condition(pipeline, framed), frame)
    result: list[Background | CloseUpBackground] = list(backgrounds)
    for row, (background, _, close_up), window in zip(rows, chosen, windows, strict=True):
        result[row] = CloseUpBackground(background, close_up, window)
    return result


def _select_rows(condition: Condition, rows: Sequence[int]) -> Condition:
    """Return the condition of some of the N; what is the same in all stays."""
    columns = {
        field.name: values[list(rows)]
        for field in fields(Condition)
        if isinstance(values := getattr(condition, field.name), torch.Tensor) and len(values) > 1
    }
    return replace(condition, **columns)  # type: ignore[arg-type]


def _frame_product(product: Product, close_up: CloseUp) -> FramedProduct:
    return frame_product(_crop_product(product, close_up), close_up.frame)


def _crop_product(product: Product, close_up: CloseUp) -> Product:
    return Product(close_up.crop(product.pixels), close_up.crop(product.alpha), product.origin)


def _encode_window(
    pipeline: CanvasPipeline, background: Background, product: Product, close_up: CloseUp
) -> torch.Tensor:
    """Return normalised latents (1, C, h, w) of what the window shows before it is generated again."""
    window = close_up.crop(background.composite(product)).astype(np.float32)
    return encode_known(pipeline, close_up.frame.insert_product(window))
