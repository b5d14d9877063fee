"""Product pins with what the conditional decoder is told of them, beside latents: encoded, or painted by a denoiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm

from canvas.data.frames import View, viewed
from canvas.data.images import decode, on_white
from canvas.data.masks import decode_alpha
from canvas.inference.denoise import Condition, denoised
from canvas.inference.painting_spec import PaintingSpec
from canvas.models.latents import LatentScale
from canvas.precision import half_on, held_in
from canvas.train.data import Batch
from canvas.train.rows import ShardRow, ShardRows, by_bucket
from canvas.train.state import evaluating

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """One pin in its frame."""

    row: ShardRow
    pixels: torch.Tensor  # uint8 (3, H, W)
    alpha: torch.Tensor  # (1, H, W), 0..1; the mask is where it is one half or more
    latents: torch.Tensor  # (C, h, w), raw
    painted: bool  # whether the latents are a denoiser's

    @property
    def mask(self) -> torch.Tensor:
        """(1, H, W), 1 = product."""
        return (self.alpha >= 0.5).float()

    @property
    def truth(self) -> torch.Tensor:
        """(1, H, W), 1 where the decoded picture is to equal the pin: of painted latents the product alone."""
        return self.mask if self.painted else torch.ones_like(self.alpha)


def evenly(choices: Sequence[T], count: int) -> list[T]:
    """`count` of the choices (or all there are), spread evenly."""
    places = np.linspace(0, len(choices) - 1, min(count, len(choices))).round().astype(int)
    return [choices[place] for place in places]


def known_pins(shards: ShardRows, rows: Sequence[ShardRow], pins: Path, masks: Path) -> list[Known]:
    """The product pins `rows` of the shards, their first views, cropped as their latents are; in memory, 7 bytes a
    pixel."""
    assert not any(row.view for row in rows), "other views may be mirrored, which the shards do not tell"
    wanted = [("pin_id", "in", [row.pin_id for row in rows])]
    pictures = pq.read_table(pins, columns=["pin_id", "image"], filters=wanted).to_pylist()
    mattes = pq.read_table(masks, columns=["pin_id", "alpha"], filters=wanted).to_pylist()
    image_of = {row["pin_id"]: row["image"] for row in pictures}
    matte_of = {row["pin_id"]: row["alpha"] for row in mattes}
    return [_known(shards, row, image_of[row.pin_id], matte_of[row.pin_id]) for row in rows]


def _known(shards: ShardRows, row: ShardRow, picture: bytes, matte: bytes) -> Known:
    stored = _columns(shards, [row.row], {"moments": "moments", "sizes": "sizes"})
    height, width, top, left, *frame = (int(value) for value in stored["sizes"][0])
    view = View((height, width), top, left, (frame[0], frame[1]))
    grey = Image.fromarray((decode_alpha(matte) * 255).round().astype(np.uint8))
    return Known(
        row=row,
        pixels=torch.from_numpy(viewed(on_white(decode(picture)), view).copy()).permute(2, 0, 1),
        alpha=torch.from_numpy(viewed(grey, view).copy())[None].float() / 255,
        latents=stored["moments"][0].chunk(2)[0],
        painted=False,
    )


class Painter:
    """Paints backgrounds round products: latents as the decoder meets them in use."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        scale: LatentScale,
        shards: ShardRows,
        spec: PaintingSpec,
        seed: int,
    ) -> None:
        self.unet = unet
        self.scheduler = scheduler
        self.scale = scale
        self.shards = shards
        self.spec = spec
        self.seed = seed

    def painted(self, pins: Sequence[Known]) -> list[Known]:
        """The same pins, in the same order, with latents painted after their first caption and product mask."""
        known = {pin.row.row: pin for pin in pins}
        with tqdm(total=len(pins), desc="paint", unit="pin") as bar, evaluating(self.unet):
            for rows in self._batches(by_bucket(pin.row for pin in pins)):
                for row, latents in zip(rows, self._latents(rows), strict=True):
                    known[row] = replace(known[row], latents=latents, painted=True)
                bar.update(len(rows))
        return [known[pin.row.row] for pin in pins]

    def _batches(self, buckets: Mapping[str, Sequence[int]]) -> Iterator[Sequence[int]]:
        for rows in buckets.values():
            for first in range(0, len(rows), self.spec.batch_size):
                yield rows[first : first + self.spec.batch_size]

    def _latents(self, rows: Sequence[int]) -> torch.Tensor:
        """Raw latents (N, C, h, w) on the CPU; a pin's noise is a function of the seed and its row."""
        names = {name: name for name in ("text_states", "text_pooled", "sizes")}
        of = _columns(self.shards, rows, names | {"masked": "masked_product", "holes": "holes_product"})
        noise = [
            torch.randn(of["masked"].shape[2:], generator=torch.Generator().manual_seed(self.seed + row))
            for row in rows
        ]
        device = self.unet.device
        condition = Condition(
            states=of["text_states"][:, 0].to(device),
            pooled=of["text_pooled"][:, 0].to(device),
            sizes=of["sizes"].to(device),
            hole=of["holes"][:, 0].to(device),
            masked=self.scale.normalized(of["masked"][:, 0]).to(device),
        )
        with held_in(half_on(device, self.spec.precision), self.unet):
            latents = denoised(
                self.unet,
                self.scheduler,
                torch.stack(noise).to(device),
                condition,
                steps=self.spec.steps,
                guidance_scale=self.spec.guidance_scale,
                guidance_stop=self.spec.guidance_stop,
            )
        return self.scale.raw(latents).cpu()


def _columns(shards: ShardRows, rows: Sequence[int], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    batch = shards.batch(rows, names)
    return {name: torch.as_tensor(batch[name]).float() for name in names}


def stacked(pins: Sequence[Known]) -> Batch:
    """Pins of one frame as the batch that `canvas.models.decoder.DecoderObjective` reads."""
    return {
        "pin_id": [pin.row.pin_id for pin in pins],
        "images": torch.stack([pin.pixels for pin in pins]),
        "latents": torch.stack([pin.latents for pin in pins]),
        "mask": torch.stack([pin.mask for pin in pins]),
        "alpha": torch.stack([pin.alpha for pin in pins]),
        "truth": torch.stack([pin.truth for pin in pins]),
    }
