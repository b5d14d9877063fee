"""Training the denoiser: our loop on precomputed shards against the step of diffusers' text-to-image example.

    OMP_NUM_THREADS=2 python -m bench.training_speed [artifacts/pins] [--profile demo]

A transformer's step is that of examples/dreambooth/train_dreambooth_flux.py; with `--profile unet` it is that of
examples/text_to_image/train_text_to_image.py with SDXL's conditioning, as train_text_to_image_lora_sdxl.py has it
(bench.gpu.stock has both losses). The loader decodes, resizes, crops and flips each image, and every step runs the
autoencoder and both text encoders; our shards hold what these give. (train_text_to_image_sdxl.py alone encodes all
pins beforehand, into memory.) What those scripts leave off by default is off on both sides: averages of the weights,
gradient checkpointing, workers of the loader. Denoiser, text encoders, batch, learning rate and pins are the same;
weights are random, sizes those of the profile. The example's autoencoder is once ours and once an AutoencoderKL, the
kind that it can load. Each side runs in fp32, the example's default, and in bf16, ours where the processor multiplies
it. All take turns in one process; figures are medians over ROUNDS of STEPS steps. It prints JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench import models
from bench.gpu.stock import StockLoss
from bench.measurement import measure_in_turns, measure_seconds
from canvas.clip.model import TextTower, encode_prompts
from canvas.denoiser.batch import build_batches
from canvas.denoiser.family import Denoiser
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec
from canvas.pins import tables
from canvas.pins.frames import FrameSpec
from canvas.pins.images import decode_image
from canvas.shards.encoding import Encoders, PinSamples
from canvas.shards.files import write_shards
from canvas.shards.rows import ShardRows
from canvas.shards.spec import EncodingSpec
from canvas.train.data import PrefetchedBatches
from canvas.train.loop import fit
from canvas.train.precision import resolve_precision
from canvas.train.spec import Precision, TrainSpec
from canvas.vae.model import Vae, build_vae, compute_posterior, get_latent_scale
from canvas.vae.spec import VaeSpec
from lifecycle.declare.params import load_sections, read_section

Row = dict[str, Any]

PINS, STEPS, ROUNDS = 256, 6, 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The sections of params.yaml that matter here; square images only, as the example knows no others."""

    frames: FrameSpec
    vae: VaeSpec
    diffusion: DiffusionSpec
    encode: EncodingSpec
    train: TrainSpec

    kind: Literal["unet", "dit"]
    profile: str

    @classmethod
    def read(cls, profile: str = "demo") -> Sizes:
        sections = load_sections(profile)
        frames, vae = read_section(FrameSpec, "frames", sections), read_section(VaeSpec, "vae", sections)
        diffusion = read_section(DiffusionSpec, "diffusion", sections)
        return cls(
            frames=replace(frames, buckets=((frames.side, frames.side),)),
            vae=vae,
            diffusion=diffusion.resolve_shift((frames.side // vae.factor) ** 2),
            encode=read_section(EncodingSpec, "encode", sections),
            train=models.read_train_spec(STEPS, profile),
            kind=read_section(DenoiserSpec, "denoiser", sections).kind,
            profile=profile,
        )

    def build_denoiser(self) -> Denoiser:
        return models.build_random_denoiser(
            latent_channels=self.vae.latent_channels,
            sample_size=self.frames.side // self.vae.factor,
            profile=self.profile,
        )


class ExampleDataset(Dataset[Row]):
    """Pins as in the example's data set: encoded images, decoded by Pillow and transformed whenever they are read."""

    def __init__(self, rows: Sequence[Row], side: int) -> None:
        self.rows = rows
        self.transform = transforms.Compose(
            [
                transforms.Resize(side, interpolation=transforms.InterpolationMode.LANCZOS),
                transforms.RandomCrop(side),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row = self.rows[index]
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(row["image"])))
        return {"pixels": self.transform(image.convert("RGB")), "text": row["alt_text"] or row["title"] or ""}


def build_example_run(
    sizes: Sizes, rows: Sequence[Row], vae: Vae, towers: Sequence[TextTower], *, bf16: bool
) -> Callable[[], float]:
    """Build a measure of the seconds of STEPS steps of the example's loop.

    `bf16`: under the autocast of `--mixed_precision bf16`, spelled out, because accelerate knows one precision a
    process.
    """
    accelerator = Accelerator(cpu=True)
    denoiser: Any = sizes.build_denoiser()
    denoiser.train()
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=sizes.train.learning_rate, weight_decay=sizes.train.weight_decay
    )
    compute_loss = StockLoss(sizes.kind, sizes.diffusion.train_timesteps)
    batch_size, side = sizes.train.batch_size, sizes.frames.side
    denoiser, optimizer, loader, schedule = accelerator.prepare(
        denoiser,
        optimizer,
        DataLoader(ExampleDataset(rows, side), batch_size=batch_size, shuffle=True, drop_last=True),
        get_scheduler("constant", optimizer),
    )
    size_ids = torch.tensor([[side, side, 0, 0, side, side]]).repeat(batch_size, 1)
    batches = chain.from_iterable(repeat(loader))

    def run() -> None:
        for _ in range(STEPS):
            batch = next(batches)
            with accelerator.accumulate(denoiser):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    with torch.no_grad():
                        latents = compute_posterior(vae, batch["pixels"]).sample() * vae.config["scaling_factor"]
                    states, pooled = encode_prompts(towers, batch["text"])
                    loss = compute_loss(denoiser, latents, states, pooled, size_ids)
                accelerator.gather(loss.repeat(batch_size)).mean().item()  # for the tracker
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(denoiser.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            loss.detach().item()  # for the progress bar

    return partial(measure_seconds, run)


def build_canvas_run(sizes: Sizes, shards: Path, vae: Vae, work: Path, precision: Precision) -> Callable[[], float]:
    """Build a measure of the seconds of STEPS steps of our loop, without building and saving the model."""
    train = replace(sizes.train, precision=precision)
    rows = ShardRows(shards)
    batches = build_batches(rows, rows.index, "none", train.batch_size, train.seed)
    scale = get_latent_scale(vae)
    objective = DenoisingObjective(sizes.diffusion, scale, captions=1, caption_dropout=0.1, inpaint=False)
    denoiser = sizes.build_denoiser()

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=work) as checkpoints:
            result = fit(
                denoiser,
                objective,
                PrefetchedBatches(batches),
                train,
                checkpoints=Path(checkpoints),
                log=lambda *_: None,
            )
        return STEPS * train.batch_size / result.images_per_second

    return run


def write_pin_shards(sizes: Sizes, pins: Path, ids: Sequence[str], encoders: Encoders, work: Path) -> Path:
    """Write shards of the pins without product masks, for text-to-image."""
    tables.write(work / "masks", [], tables.MASKS)
    captions = {pin_id: [f"a {pin_id}"] for pin_id in ids}
    samples = PinSamples(
        pins, work / "masks", [(pin_id, 0) for pin_id in ids], captions, encoders, sizes.encode, sizes.frames
    )
    write_shards(work / "shards", len(ids), samples, work=work / "parts", rows_per_shard=sizes.encode.rows_per_shard)
    return work / "shards"


def read_first_pins(pins: Path) -> list[Row]:
    """Read the first PINS pins whose image can be decoded."""

    def can_be_decoded(row: Row) -> bool:
        with suppress(ValueError):
            return bool(decode_image(row["image"]))
        return False

    batches = tables.read_batches(pins, ["pin_id", "image", "title", "alt_text"])
    return list(islice(filter(can_be_decoded, (row for batch in batches for row in batch.to_pylist())), PINS))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.training_speed")
    parser.add_argument("pins", type=Path, nargs="?", default=Path("artifacts/pins"), help="table of pins")
    parser.add_argument("--profile", default="demo", help="whose denoiser is trained: demo a transformer, unet a UNet")
    options = parser.parse_args(arguments)
    pins: Path = options.pins
    if not pins.is_dir():
        sys.exit(f"{pins} is missing: run `make demo` first, or name a table of pins")
    sizes, rows = Sizes.read(options.profile), read_first_pins(pins)
    torch.manual_seed(1)
    clips, towers = models.build_random_text_encoders()
    vae = build_vae(sizes.vae, sample_size=sizes.frames.side).eval().requires_grad_(False)
    stock = models.build_random_kl_autoencoder(sizes.vae.latent_channels).requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shards = write_pin_shards(sizes, pins, [row["pin_id"] for row in rows], Encoders(vae, clips, towers), work)
        runs = {
            "ours_fp32": build_canvas_run(sizes, shards, vae, work, "fp32"),
            "ours_bf16": build_canvas_run(sizes, shards, vae, work, "bf16"),
            "example_fp32": build_example_run(sizes, rows, vae, towers, bf16=False),
            "example_fp32_autoencoder_kl": build_example_run(sizes, rows, stock, towers, bf16=False),
            "example_bf16": build_example_run(sizes, rows, vae, towers, bf16=True),
            "example_bf16_autoencoder_kl": build_example_run(sizes, rows, stock, towers, bf16=True),
        }
        seconds = measure_in_turns(runs, ROUNDS)
    images = STEPS * sizes.train.batch_size
    speed = {name: images / statistics.median(values) for name, values in seconds.items()}
    figures = {
        "threads": torch.get_num_threads(),
        "batch_size": sizes.train.batch_size,
        "denoiser": sizes.kind,
        "denoiser_parameters": sizes.build_denoiser().num_parameters(),
        "images_per_second": speed,
        "spread": {name: float(np.ptp(values) / np.median(values)) for name, values in seconds.items()},
        "auto": resolve_precision("auto", torch.device("cpu")),
        "speedups": {
            f"{ours} / {other}": speed[ours] / speed[other]
            for ours in runs
            for other in runs
            if ours.startswith("ours") and other.startswith("example")
        },
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
