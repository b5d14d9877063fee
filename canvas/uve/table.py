"""Embeddings of images by UVE and CLIP's image tower: of arrays, and of a table of pins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canvas.features.vectors import Vectors

if TYPE_CHECKING:
    import daft
    import open_clip
    import pyarrow as pa

    from canvas.pins.images import Pixels
    from canvas.uve.model import UveModel


def choose_input_side(uve: UveModel, clip: open_clip.CLIP) -> int:
    """Return the side of the square at which neither network misses what it could see."""
    size = clip.visual.image_size
    return max(uve.config["image_size"], size if isinstance(size, int) else max(size))


def embed_arrays(
    uve: UveModel, clip: open_clip.CLIP, images: Sequence[Pixels], batch_size: int
) -> tuple[Vectors, Vectors]:
    """Return UVE's and CLIP's unit vectors of `images`, uint8 [S, S, 3] each; both are in eval mode on one device."""
    import torch

    from canvas.features.perceptual import compute_image_embeddings
    from canvas.pins.images import bytes_to_tensor
    from canvas.uve.model import compute_embeddings

    uve_vectors, clip_vectors = [], []
    with torch.no_grad():
        for first in range(0, len(images), batch_size):
            stacked = torch.from_numpy(np.stack(images[first : first + batch_size]))
            pixels = bytes_to_tensor(stacked.permute(0, 3, 1, 2).to(uve.device))
            uve_vectors.append(compute_embeddings(uve, pixels).cpu())
            clip_vectors.append(compute_image_embeddings(clip, pixels).float().cpu())
    return torch.cat(uve_vectors).numpy(), torch.cat(clip_vectors).numpy()


def embed_kept_pins(
    pins: Path, kept: Path, uve: Path, clip: Path, *, batch_size: int, workers: int | None, threads: int
) -> Iterator[pa.RecordBatch]:
    """Return rows of tables.EMBEDDINGS for the kept pins, in the order of `pins` on the native runner.

    Each of `workers` processes (None: the engine's own) loads the models once. Images that cannot be decoded are the
    filter's to drop: they raise.
    """
    import daft

    from canvas.pins import tables

    numbers = daft.DataType.list(daft.DataType.float32())
    fields = {"uve": numbers, "uve_code": daft.DataType.binary(), "clip": numbers}

    @daft.cls(max_concurrency=workers, use_process=False)
    class Embedder:
        def __init__(self) -> None:
            import torch

            from canvas.clip.model import load_clip
            from canvas.device import default_device
            from canvas.uve.model import load_uve

            torch.set_num_threads(threads)
            self.uve = load_uve(uve).to(default_device())
            self.clip = load_clip(clip / "second").eval().to(default_device())

        @daft.method.batch(return_dtype=daft.DataType.struct(fields), batch_size=batch_size)
        def embed(self, column: daft.Series) -> list[dict[str, Any]]:
            from canvas.pins.image_batches import resize_to_square
            from canvas.pins.images import decode_image
            from canvas.uve.model import pack_codes

            side = choose_input_side(self.uve, self.clip)
            images = [resize_to_square(decode_image(data), side) for data in column.to_pylist()]
            vectors, clip_vectors = embed_arrays(self.uve, self.clip, images, batch_size)
            return [
                {"uve": vector.tolist(), "uve_code": code.tobytes(), "clip": clip_vector.tolist()}
                for vector, code, clip_vector in zip(vectors, pack_codes(vectors), clip_vectors, strict=True)
            ]

    embed: Any = Embedder().embed  # Daft makes an expression of it
    frame = tables.scan_kept(pins, kept, ["pin_id", "image"])
    frame = frame.select("pin_id", embed(frame["image"]).alias("embedding"))
    frame = frame.select("pin_id", *(frame["embedding"].get(name).alias(name) for name in fields))
    return tables.stream_batches(frame, len(tables.read_kept_splits(pins, kept)), "embed")
