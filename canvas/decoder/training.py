"""Training of the conditional decoder on product pins, with encoded and with generated latents; the sheet of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from canvas.decoder.model import ConditionalDecoder, DecoderBatch, DecoderObjective
from canvas.decoder.spec import TrainDecoderParams
from canvas.denoiser.batch import read_batch
from canvas.denoiser.family import Denoiser
from canvas.denoiser.process import build_training_scheduler
from canvas.denoiser.sampling import Condition, LatentSampler, sample_noise
from canvas.denoiser.spec import DiffusionSpec, SamplingSpec
from canvas.masks.composite import composite_product, erode_mask
from canvas.pins import tables
from canvas.pins.fallbacks import Notes, choose_splits
from canvas.pins.frames import View, extract_view
from canvas.pins.images import (
    bytes_to_tensor,
    composite_on_white,
    decode_image,
    draw_contact_sheet,
    encode_png,
    tensor_to_bytes,
)
from canvas.pins.masks import decode_alpha
from canvas.shards.files import Sample, Shards, write_shards
from canvas.shards.rows import BucketBatches, ShardRow, ShardRows, group_by_bucket, has_product
from canvas.train.data import PrefetchedBatches
from canvas.train.distributed import World, join_world
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Parallel, TrainSpec
from canvas.vae.model import LatentScale, Vae, decode_latents

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSample:
    """One pin in its frame."""

    pin_id: str
    pixels: torch.Tensor  # uint8 (3, H, W)
    alpha: torch.Tensor  # (1, H, W), 0..1; the mask is where it is one half or more
    latents: torch.Tensor  # (C, h, w), raw
    is_generated: bool  # whether the latents are a denoiser's

    @property
    def mask(self) -> torch.Tensor:
        """(1, H, W), 1 = product."""
        return (self.alpha >= 0.5).float()

    @property
    def target_mask(self) -> torch.Tensor:
        """(1, H, W), 1 where the decoded image is to equal the pin: of generated latents the product alone."""
        return self.mask if self.is_generated else torch.ones_like(self.alpha)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionedPin:
    """One pin in memory, as the bytes of its tables; latents stay in the shards."""

    row: ShardRow
    image_bytes: bytes
    alpha_bytes: bytes
    shards: ShardRows
    generated_latents: tuple[Shards, int] | None = None  # shards and row; None: the encoded ones

    def load_sample(self) -> DecoderSample:
        """Decode the pin, cropped as its latents are."""
        stored = self.shards.read_columns([self.row.row], ["moments", "sizes"])
        height, width, top, left, *frame = (int(value) for value in stored["sizes"][0])
        view = View((height, width), top, left, (frame[0], frame[1]))
        grey = Image.fromarray((decode_alpha(self.alpha_bytes) * 255).round().astype(np.uint8))
        pixels = extract_view(composite_on_white(decode_image(self.image_bytes)), view)
        latents = stored["moments"][0].float().chunk(2)[0]
        if self.generated_latents is not None:
            shards, row = self.generated_latents
            latents = torch.as_tensor(shards[row]["latents"])
        return DecoderSample(
            pin_id=self.row.pin_id,
            pixels=torch.from_numpy(pixels.copy()).permute(2, 0, 1),
            alpha=torch.from_numpy(extract_view(grey, view).copy())[None].float() / 255,
            latents=latents,
            is_generated=self.generated_latents is not None,
        )


def select_even_runs(choices: Sequence[T], count: int, runs: int = 1000) -> list[T]:
    """Select `count` of the choices, or all there are, spread evenly in at most `runs` runs of neighbours, which are
    read together."""
    count = min(count, len(choices))
    run = max(1, count // runs)
    firsts = np.linspace(0, len(choices) - run, -(-count // run)).round().astype(int)
    places = np.unique(firsts[:, None] + np.arange(run))[:count]
    return [choices[place] for place in places]


def read_conditioned_pins(shards: ShardRows, rows: Sequence[ShardRow], pins: Path, masks: Path) -> list[ConditionedPin]:
    """Read the product pins `rows`, which are first views, into memory."""
    assert not any(row.view for row in rows), "other views may be mirrored, which the shards do not tell"
    ids = {row.pin_id for row in rows}
    images, alphas = (
        {row["pin_id"]: row[column] for row in tables.RowsById(table).read(ids, ("pin_id", column))}
        for table, column in ((pins, "image"), (masks, "alpha"))
    )
    return [
        ConditionedPin(row=row, image_bytes=images[row.pin_id], alpha_bytes=alphas[row.pin_id], shards=shards)
        for row in rows
    ]


def stack_samples(samples: Sequence[DecoderSample]) -> DecoderBatch:
    """Stack samples of one frame."""
    return {
        "pin_id": [sample.pin_id for sample in samples],
        "images": torch.stack([sample.pixels for sample in samples]),
        "latents": torch.stack([sample.latents for sample in samples]),
        "mask": torch.stack([sample.mask for sample in samples]),
        "alpha": torch.stack([sample.alpha for sample in samples]),
        "target_mask": torch.stack([sample.target_mask for sample in samples]),
    }


@dataclass(frozen=True, slots=True)
class LatentGenerator:
    """Generates backgrounds round products: latents as the decoder meets them in use."""

    denoiser: Denoiser
    diffusion: DiffusionSpec
    scale: LatentScale
    shards: ShardRows
    spec: SamplingSpec
    seed: int

    def generate_latents(self, pins: Sequence[ConditionedPin], path: Path, world: World) -> list[ConditionedPin]:
        """Return the pins, in their order, with latents generated after their first caption and product mask.

        Latents are kept below `path`, where a killed call goes on; the ranks of `world`, which have it in common,
        share the work.
        """
        ordered = sorted(pins, key=lambda pin: (pin.row.bucket, pin.row.row))
        shards = path / "shards"
        with tqdm(total=len(pins), desc="generate", unit="pin", disable=world.rank > 0) as bar:

            def generate(numbers: range) -> Iterator[Sample]:
                bar.update(numbers.start - bar.n)
                for _, group in groupby(ordered[numbers.start : numbers.stop], key=lambda pin: pin.row.bucket):
                    rows = [pin.row for pin in group]
                    for row, latents in zip(rows, self._generate_batch([row.row for row in rows]), strict=True):
                        yield {"pin_id": row.pin_id, "latents": latents}
                bar.update(len(numbers))

            if not world.broadcast(shards.exists()):
                size = self.spec.batch_size
                write_shards(shards, len(pins), generate, work=path / "parts", rows_per_shard=size, world=world)
            world.wait()
            bar.update(len(pins) - bar.n)
        generated, numbers = Shards(shards), {pin.row.row: number for number, pin in enumerate(ordered)}
        return [replace(pin, generated_latents=(generated, numbers[pin.row.row])) for pin in pins]

    def _generate_batch(self, rows: Sequence[int]) -> torch.Tensor:
        """Generate raw latents (N, C, h, w), on the CPU; a pin's noise is a function of the seed and its row."""
        batch = read_batch(self.shards, rows, "product")
        device = self.denoiser.device
        condition = Condition(
            states=batch["text_states"][:, 0].float().to(device),
            pooled=batch["text_pooled"][:, 0].float().to(device),
            sizes=batch["sizes"].float().to(device),
            hole=batch["holes"][:, 0].float().to(device),
            masked_latents=self.scale.normalize(batch["masked"][:, 0].float()).to(device),
        )
        sampler = LatentSampler(
            denoiser=self.denoiser,
            scheduler=build_training_scheduler(self.diffusion.resolve_shift(self.shards.cells)),
            scale=self.scale,
            steps=self.spec.steps,
            guidance_scale=self.spec.guidance_scale,
            guidance_stop=self.spec.guidance_stop,
            reuse=self.spec.reuse,
            precision=self.spec.precision,
        )
        noise = sample_noise(batch["masked"].shape[2:], [self.seed + row for row in rows], device)
        return sampler.sample(noise, condition).cpu()


def load_generated_samples(pins: Sequence[ConditionedPin], count: int) -> list[DecoderSample]:
    """Decode `count` of the pins with generated latents, spread evenly."""
    generated = [pin for pin in pins if pin.generated_latents]
    return [pin.load_sample() for pin in select_even_runs(generated, count)]


def read_decoder_pins(
    generator: LatentGenerator,
    pins: Path,
    masks: Path,
    path: Path,
    params: TrainDecoderParams,
    parallel: Parallel,
    notes: Notes,
) -> tuple[list[ConditionedPin], list[ConditionedPin]]:
    """Read product pins, spread evenly: those to learn on, and held-out ones to score.

    Args:
        path: where generated latents are kept, for a killed call to go on.
        params: how many pins to learn on, how many of these come again with generated latents, and how many to score,
            each with both. Where no product is held out, pins of the train split stand for them, which is noted.
    """
    products = [row for row in generator.shards.index if has_product(row) and row.view == 0]
    splits = choose_splits((row.split for row in products), tables.HELD_OUT_SPLITS, notes)
    train_pins, scored_pins = (
        read_conditioned_pins(
            generator.shards, select_even_runs([row for row in products if row.split in chosen], count), pins, masks
        )
        for chosen, count in ((("train",), params.pins), (splits, params.scored_pins))
    )
    with join_world(parallel) as world:
        again = select_even_runs(train_pins, params.painted_pins)
        train_pins += generator.generate_latents(again, path / "painted", world)
        scored_pins += generator.generate_latents(scored_pins, path / "painted-held-out", world)
    generator.denoiser.to("cpu")  # training has the device to itself
    return train_pins, scored_pins


def fit_decoder(
    decoder: ConditionalDecoder,
    pins: Sequence[ConditionedPin],
    objective: DecoderObjective,
    spec: TrainSpec,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
    sample: Callable[[ConditionalDecoder, int], None],
) -> TrainResult:
    """Train the decoder in place on batches of pins of one frame.

    Args:
        decoder: As it starts.
        pins: With their latents and what the decoder is conditioned on.
        objective: Weights of the loss, and the adversary's.
        spec: Of the loop.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.
        sample: The decoder and the step, likewise.
    """
    places = group_by_bucket(replace(pin.row, row=place) for place, pin in enumerate(pins))

    def read(chosen: Sequence[int]) -> DecoderBatch:
        return stack_samples([pins[place].load_sample() for place in chosen])

    return fit(
        decoder,
        objective,
        PrefetchedBatches(BucketBatches(read, places, spec.batch_size, spec.seed)),
        spec,
        checkpoints=checkpoints,
        log=log,
        sample=sample,
        adversary=objective.loss.adversary,
    )


def decode_with_baseline(
    decoder: ConditionalDecoder, autoencoder: Vae, sample: DecoderSample
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode (1, 3, H, W) by the conditional decoder, and by the plain one with the product pasted on."""
    device = decoder.device
    images, mask, alpha = (
        column[None].to(device) for column in (bytes_to_tensor(sample.pixels), sample.mask, sample.alpha)
    )
    latents = sample.latents[None].to(device)
    core = erode_mask(mask, decoder.config["erosion"])
    plain = decode_latents(autoencoder.to(device), latents)
    decoded = decoder(latents, images, mask, alpha)
    return decoded.float().cpu(), composite_product(plain, images, core, mask, alpha).float().cpu()


def draw_decoder_sheet(decoder: ConditionalDecoder, autoencoder: Vae, samples: Sequence[DecoderSample]) -> bytes:
    """Draw pins; below each its product decoded with the background, and pasted on it, as PNG."""
    columns = [
        (bytes_to_tensor(sample.pixels[None]), *decode_with_baseline(decoder, autoencoder, sample))
        for sample in samples
    ]
    images, labels = [], []
    for label, row in zip(("held out", "decoded", "pasted"), zip(*columns, strict=True), strict=True):
        images += [Image.fromarray(tensor_to_bytes(batch[0]).permute(1, 2, 0).numpy()) for batch in row]
        labels += [label] * len(samples)
    return encode_png(draw_contact_sheet(images, labels, columns=len(samples), cell=128))


def build_sampler(
    autoencoder: Vae, samples: Sequence[DecoderSample], log_image: Callable[[str, bytes], None]
) -> Callable[[ConditionalDecoder, int], None]:
    """Build the `sample` of a training: it logs the sheet of the same samples."""

    def sample(decoder: ConditionalDecoder, step: int) -> None:
        log_image(f"samples-{step:06d}", draw_decoder_sheet(decoder, autoencoder, samples))

    return sample
