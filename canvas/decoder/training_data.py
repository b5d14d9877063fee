"""Product pins with what the conditional decoder is told of them, beside latents: encoded, or painted by a denoiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm

from canvas.denoiser.sampling import Condition, sample_latents
from canvas.denoiser.spec import SamplingSpec
from canvas.pins import tables
from canvas.pins.frames import View, extract_view
from canvas.pins.images import composite_on_white, decode_image
from canvas.pins.masks import decode_alpha
from canvas.shards.files import Sample, Shards, write_shards
from canvas.shards.rows import ShardRow, ShardRows
from canvas.train.data import Batch
from canvas.train.distributed import World
from canvas.train.precision import cast_parameters, choose_autocast_dtype
from canvas.train.state import eval_mode
from canvas.vae.latents import LatentScale

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSample:
    """One pin in its frame."""

    pin_id: str
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionedPin:
    """One pin as it is kept: picture and matte encoded, latents in the shards unless they are painted."""

    row: ShardRow
    picture: bytes
    matte: bytes
    shards: ShardRows
    painted: tuple[Shards, int] | None = None  # where latents of a denoiser are

    def known(self) -> DecoderSample:
        """Decoded, and cropped as its latents are."""
        stored = _read_columns(self.shards, [self.row.row], {"moments": "moments", "sizes": "sizes"})
        height, width, top, left, *frame = (int(value) for value in stored["sizes"][0])
        view = View((height, width), top, left, (frame[0], frame[1]))
        grey = Image.fromarray((decode_alpha(self.matte) * 255).round().astype(np.uint8))
        latents = stored["moments"][0].chunk(2)[0]
        if self.painted is not None:
            shards, row = self.painted
            latents = torch.as_tensor(shards[row]["latents"])
        return DecoderSample(
            pin_id=self.row.pin_id,
            pixels=torch.from_numpy(extract_view(composite_on_white(decode_image(self.picture)), view).copy()).permute(
                2, 0, 1
            ),
            alpha=torch.from_numpy(extract_view(grey, view).copy())[None].float() / 255,
            latents=latents,
            painted=self.painted is not None,
        )


def select_even_runs(choices: Sequence[T], count: int, runs: int = 1000) -> list[T]:
    """`count` of the choices (or all there are), spread evenly; more than `runs` in as many runs of neighbours, which
    are read together."""
    count = min(count, len(choices))
    run = max(1, count // runs)
    firsts = np.linspace(0, len(choices) - run, -(-count // run)).round().astype(int)
    places = np.unique(firsts[:, None] + np.arange(run))[:count]
    return [choices[place] for place in places]


def read_conditioned_pins(shards: ShardRows, rows: Sequence[ShardRow], pins: Path, masks: Path) -> list[ConditionedPin]:
    """The product pins `rows` of the shards, their first views; in memory, in the bytes of the two tables."""
    assert not any(row.view for row in rows), "other views may be mirrored, which the shards do not tell"
    ids = {row.pin_id for row in rows}
    image_of, matte_of = (
        {row["pin_id"]: row[column] for row in tables.RowsById(table).read(ids, ("pin_id", column))}
        for table, column in ((pins, "image"), (masks, "alpha"))
    )
    return [
        ConditionedPin(row=row, picture=image_of[row.pin_id], matte=matte_of[row.pin_id], shards=shards) for row in rows
    ]


class LatentGenerator:
    """Paints backgrounds round products: latents as the decoder meets them in use."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        scale: LatentScale,
        shards: ShardRows,
        spec: SamplingSpec,
        seed: int,
    ) -> None:
        self.unet = unet
        self.scheduler = scheduler
        self.scale = scale
        self.shards = shards
        self.spec = spec
        self.seed = seed

    def painted(self, pins: Sequence[ConditionedPin], place: Path, world: World) -> list[ConditionedPin]:
        """The same pins, in the same order, with latents painted after their first caption and product mask.

        They are kept below `place`, where a killed call goes on; the ranks of `world`, which have it in common, share
        the work.
        """
        ordered = sorted(pins, key=lambda pin: (pin.row.bucket, pin.row.row))
        path = place / "shards"
        with tqdm(total=len(pins), desc="paint", unit="pin", disable=world.rank > 0) as bar, eval_mode(self.unet):

            def samples(rows: range) -> Iterator[Sample]:
                bar.update(rows.start - bar.n)
                for _, pins_of_one in groupby(ordered[rows.start : rows.stop], key=lambda pin: pin.row.bucket):
                    same = list(pins_of_one)
                    for pin, latents in zip(same, self._latents([pin.row.row for pin in same]), strict=True):
                        yield {"pin_id": pin.row.pin_id, "latents": latents}
                bar.update(len(rows))

            if not world.broadcast(path.exists()):
                each = self.spec.batch_size
                write_shards(path, len(pins), samples, work=place / "parts", rows_per_shard=each, world=world)
            world.wait()
            bar.update(len(pins) - bar.n)
        found, at = Shards(path), {pin.row.row: number for number, pin in enumerate(ordered)}
        return [replace(pin, painted=(found, at[pin.row.row])) for pin in pins]

    def _latents(self, rows: Sequence[int]) -> torch.Tensor:
        """Raw latents (N, C, h, w) on the CPU; a pin's noise is a function of the seed and its row."""
        names = {name: name for name in ("text_states", "text_pooled", "sizes")}
        of = _read_columns(self.shards, rows, names | {"masked": "masked_product", "holes": "holes_product"})
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
            masked=self.scale.normalize(of["masked"][:, 0]).to(device),
        )
        with cast_parameters(choose_autocast_dtype(device, self.spec.precision), self.unet):
            latents = sample_latents(
                self.unet,
                self.scheduler,
                torch.stack(noise).to(device),
                condition,
                steps=self.spec.steps,
                guidance_scale=self.spec.guidance_scale,
                guidance_stop=self.spec.guidance_stop,
            )
        return self.scale.denormalize(latents).cpu()


def _read_columns(shards: ShardRows, rows: Sequence[int], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    batch = shards.read_batch(rows, names)
    return {name: torch.as_tensor(batch[name]).float() for name in names}


def stack_samples(pins: Sequence[DecoderSample]) -> Batch:
    """Pins of one frame as the batch that `canvas.decoder.model.DecoderObjective` reads."""
    return {
        "pin_id": [pin.pin_id for pin in pins],
        "images": torch.stack([pin.pixels for pin in pins]),
        "latents": torch.stack([pin.latents for pin in pins]),
        "mask": torch.stack([pin.mask for pin in pins]),
        "alpha": torch.stack([pin.alpha for pin in pins]),
        "truth": torch.stack([pin.truth for pin in pins]),
    }
