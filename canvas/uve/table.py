"""Embeddings of images by UVE and CLIP's image tower: of arrays, and of a table of pins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import torch
from PIL import Image

from canvas.clip.model import load_clip
from canvas.device import default_device
from canvas.features.perceptual import compute_image_embeddings
from canvas.features.vectors import Vectors
from canvas.pins import tables
from canvas.pins.image_batches import resize_to_square
from canvas.pins.images import Pixels, bytes_to_tensor
from canvas.pins.workers import Predictor, Workers, predict_columns
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.train.spec import Precision
from canvas.uve.model import UveModel, compute_embeddings, load_uve, pack_codes


def choose_input_side(uve: UveModel, clip: open_clip.CLIP) -> int:
    """Return the side of the square at which neither network misses what it could see."""
    size = clip.visual.image_size
    return max(uve.config["image_size"], size if isinstance(size, int) else max(size))


def embed_arrays(
    uve: UveModel, clip: open_clip.CLIP, images: Sequence[Pixels], batch_size: int
) -> tuple[Vectors, Vectors]:
    """Return UVE's and CLIP's unit vectors of `images`, uint8 [S, S, 3] each; both are in eval mode on one device."""
    uve_vectors, clip_vectors = [], []
    with torch.no_grad():
        for first in range(0, len(images), batch_size):
            stacked = torch.from_numpy(np.stack(images[first : first + batch_size]))
            pixels = bytes_to_tensor(stacked.permute(0, 3, 1, 2).to(uve.device))
            uve_vectors.append(compute_embeddings(uve, pixels).cpu())
            clip_vectors.append(compute_image_embeddings(clip, pixels).float().cpu())
    return torch.cat(uve_vectors).numpy(), torch.cat(clip_vectors).numpy()


def embed_kept_pins(
    pins: Path, kept: Path, uve: Path, clip: Path, workers: Workers, precision: Precision
) -> Iterator[pa.RecordBatch]:
    """Return rows of tables.EMBEDDINGS for the kept pins, in the order of `pins` on the native runner."""

    def load_predictor() -> Predictor:
        model = load_uve(uve).to(default_device())
        tower = load_clip(clip / "second").eval().to(default_device())
        side, dtype = choose_input_side(model, tower), choose_autocast_dtype(model.device, precision)

        def embed_images(images: Sequence[Image.Image]) -> list[dict[str, Any]]:
            squares = [resize_to_square(image, side) for image in images]
            with autocast(dtype, model.device):
                vectors, clip_vectors = embed_arrays(model, tower, squares, workers.batch_size)
            return [
                {"uve": vector.tolist(), "uve_code": code.tobytes(), "clip": clip_vector.tolist()}
                for vector, code, clip_vector in zip(vectors, pack_codes(vectors), clip_vectors, strict=True)
            ]

        return embed_images

    frame = tables.scan_kept(pins, kept, ["pin_id", "image"])
    rows = predict_columns(frame, load_predictor, tables.EMBEDDINGS, workers)
    return tables.stream_batches(rows, len(tables.read_kept_splits(pins, kept)), "embed")
