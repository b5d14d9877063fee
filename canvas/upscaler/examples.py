"""What the upscaler learns from: images at full size with their product, and the small twins that a generator gives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from canvas.pins import tables
from canvas.pins.fallbacks import Notes, choose_held_out
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import bytes_to_tensor, composite_on_white, decode_image, tensor_to_bytes
from canvas.pins.masks import decode_alpha
from canvas.sources.showroom.defects import RenderedImage
from canvas.sources.showroom.large import render_large
from canvas.upscaler.spec import FACTORS, TrainUpscalerParams
from canvas.vae.model import Vae, compute_posterior, decode_latents

BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class LargeImages:
    """Square images at full size, and where their product is."""

    names: list[str]
    images: torch.Tensor  # uint8 (N, 3, S, S)
    alphas: torch.Tensor  # uint8 (N, 1, S, S)

    @classmethod
    def stack(
        cls, names: Sequence[str], images: Sequence[NDArray[np.uint8]], alphas: Sequence[NDArray[np.uint8]]
    ) -> LargeImages:
        """Stack images (S, S, 3) and alphas (S, S), one or more."""
        return cls(
            list(names),
            torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.stack(alphas))[:, None].contiguous(),
        )

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Examples:
    """Images at full size, and by factor what a generator of smaller images would have made of them."""

    large: LargeImages
    small: dict[int, torch.Tensor]  # uint8 (N, 3, S / factor, S / factor)


def read_large_images(
    raw: Path, pins: Path, kept: Path, masks: Path, params: TrainUpscalerParams, threads: int, seed: int, notes: Notes
) -> tuple[LargeImages, LargeImages] | None:
    """Return images to learn on and held-out ones; None: the catalogue has none of that size.

    The showroom's pins are small, so its images are rendered anew at full size. Of any other catalogue those kept pins
    are taken that have `params.side` pixels on their shorter side, cut square in their middle.
    """
    count = 1 if params.train is None else params.images  # what nobody learns from is not drawn
    split_of = tables.read_kept_splits(pins, kept)
    if set(tables.read(pins, ["source"])["source"].to_pylist()) == {"showroom"}:
        counts = count, params.scored_images
        learnt, scored = render_large(raw / "showroom", params.side, counts, seed, threads)
        return _stack_renders("train", learnt), _stack_renders("held-out", scored)
    rows = tables.read(pins, ["pin_id", "width", "height"]).to_pylist()
    large = {row["pin_id"] for row in rows if min(row["width"] or 0, row["height"] or 0) >= params.side}
    split_of = {pin_id: split for pin_id, split in split_of.items() if pin_id in large}
    train = [pin_id for pin_id, split in split_of.items() if split == "train"]
    if not train:
        return None
    chosen = select_evenly(train, count), select_evenly(choose_held_out(split_of, notes), params.scored_images)
    return _load_pins(pins, masks, chosen[0], params.side), _load_pins(pins, masks, chosen[1], params.side)


def _stack_renders(name: str, renders: Sequence[RenderedImage]) -> LargeImages:
    images, alphas = zip(*((render.image, render.alpha) for render in renders), strict=True)
    return LargeImages.stack([f"{name}-{index}" for index in range(len(renders))], images, alphas)


def _load_pins(pins: Path, masks: Path, pin_ids: Collection[str], side: int) -> LargeImages:
    """Load pins, cut square in their middle, and their mattes; a pin without one has no product."""
    mattes = tables.read_column(masks, "alpha", set(pin_ids))
    names, images, alphas = [], [], []
    for row in tables.iterate_rows(pins, ["image"], pin_ids):
        image = composite_on_white(decode_image(row["image"]))
        matte = mattes.get(row["pin_id"])
        alpha = np.zeros((image.height, image.width), np.float32) if matte is None else decode_alpha(matte)
        names.append(row["pin_id"])
        images.append(_cut_square(np.asarray(image), side))
        alphas.append(_cut_square(np.rint(alpha * 255).astype(np.uint8), side))
    return LargeImages.stack(names, images, alphas)


def _cut_square(values: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = values.shape[:2]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    square = np.ascontiguousarray(values[top : top + shorter, left : left + shorter])
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@torch.no_grad()
def make_examples(autoencoder: Vae, large: LargeImages) -> Examples:
    """Make the small twins: averaged down, and through the autoencoder.

    A generator's images come out of a decoder, so they have its blur and its mosaic; a mere average has neither, and
    what learns from averages sharpens both. Noise on the latents, through which the conditional decoder sees, would
    teach a mosaic that no generator shows.
    """
    return Examples(large, {factor: _make_small(autoencoder, large.images, factor) for factor in FACTORS})


def _make_small(autoencoder: Vae, images: torch.Tensor, factor: int) -> torch.Tensor:
    """Return uint8 images (N, 3, S, S) made `factor` times smaller as a generator gives them."""
    parts = []
    for batch in torch.split(images, BATCH_SIZE):
        averaged = F.avg_pool2d(bytes_to_tensor(batch), factor).to(autoencoder.device)
        decoded = decode_latents(autoencoder, compute_posterior(autoencoder, averaged).mode())
        parts.append(tensor_to_bytes(decoded).cpu())
    return torch.cat(parts)
