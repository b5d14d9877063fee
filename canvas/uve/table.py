"""The embeddings of pictures: UVE and CLIP's image tower, of arrays and over a table of pins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canvas.features.vectors import Vectors

if TYPE_CHECKING:
    import daft
    import open_clip
    import torch
    from PIL import Image

    from canvas.pins.crops import Pixels
    from canvas.uve.model import UveModel


def choose_input_side(uve: UveModel, clip: open_clip.CLIP) -> int:
    """Side of the square at which neither network misses what it could see."""
    size = clip.visual.image_size
    return max(uve.config["image_size"], size if isinstance(size, int) else max(size))


def embed_arrays(
    uve: UveModel, clip: open_clip.CLIP, pictures: Sequence[Pixels], batch_size: int
) -> tuple[Vectors, Vectors]:
    """UVE's and CLIP's unit vectors of `pictures`, uint8 [S, S, 3] each; both networks in eval mode, on one device."""
    import torch

    from canvas.features.perceptual import compute_image_embeddings
    from canvas.uve.model import compute_embeddings

    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    device = uve.device
    with torch.no_grad():
        for first in range(0, len(pictures), batch_size):
            stacked = torch.from_numpy(np.stack(pictures[first : first + batch_size]))
            images = stacked.permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
            found[0].append(compute_embeddings(uve, images).cpu())
            found[1].append(compute_image_embeddings(clip, images).float().cpu())
    return torch.cat(found[0]).numpy(), torch.cat(found[1]).numpy()


def embed_table(
    pins: daft.DataFrame, uve: Path, clip: Path, *, batch_size: int, workers: int | None, threads: int
) -> daft.DataFrame:
    """Columns of tables.EMBEDDINGS for the frame's `pin_id` and `image`, in its order on the native runner.

    Lazy; each of `workers` processes (None: the engine's own) loads the models once. Pictures that cannot be decoded
    are the filter's to drop: they raise.
    """
    import daft

    numbers = daft.DataType.list(daft.DataType.float32())
    column = daft.DataType.struct({"uve": numbers, "uve_code": daft.DataType.binary(), "clip": numbers})

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

        @daft.method.batch(return_dtype=column, batch_size=batch_size)
        def rows_of(self, images: daft.Series) -> list[dict[str, Any]]:
            from canvas.pins.images import decode_image

            return self.rows([decode_image(data) for data in images.to_pylist()])

        def rows(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
            from canvas.pins.image_batches import resize_to_square
            from canvas.uve.model import pack_codes

            side = choose_input_side(self.uve, self.clip)
            own, clips = embed_arrays(
                self.uve, self.clip, [resize_to_square(image, side) for image in images], batch_size
            )
            return [
                {"uve": vector.tolist(), "uve_code": code.tobytes(), "clip": other.tolist()}
                for vector, code, other in zip(own, pack_codes(own), clips, strict=True)
            ]

    column_of: Any = Embedder().rows_of  # Daft makes an expression of it
    found = pins.select("pin_id", column_of(pins["image"]).alias("found"))
    fields = [found["found"].get(name).alias(name) for name in ("uve", "uve_code", "clip")]
    return found.select("pin_id", *fields)
