"""Training the denoiser: our loop on precomputed shards against the step of diffusers' text-to-image example.

    OMP_NUM_THREADS=2 python -m bench.training_speed [artifacts/pins]

The step is that of examples/text_to_image/train_text_to_image.py with SDXL's conditioning, as
train_text_to_image_lora_sdxl.py has it: the loader decodes, resizes, crops and flips each picture, and every step runs
the autoencoder and both text encoders; our shards hold what these give. (train_text_to_image_sdxl.py alone encodes
all pins beforehand, into memory.) What those scripts leave off by default is off on both sides: averages of the
weights, gradient checkpointing, workers of the loader. Denoiser, text encoders, batch, learning rate and pins are the
same; weights are random, sizes those of params.yaml. The example's autoencoder is once ours and once an AutoencoderKL,
the kind that it can load. Each side runs in fp32, the example's default, and in bf16, ours where the processor
multiplies it. All take turns in one process; figures are medians over ROUNDS of STEPS steps. It prints JSON.
"""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from canvas.clip.model import TextTower, build_clip, compute_text_widths, encode_prompts
from canvas.clip.spec import TextSpec
from canvas.denoiser.objective import TEXT_TO_IMAGE_COLUMNS, DenoisingObjective
from canvas.denoiser.spec import DenoiserSpec, DiffusionSpec
from canvas.denoiser.unet import build_denoiser
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
from canvas.vae.latents import get_latent_scale
from canvas.vae.model import Vae, build_vae
from canvas.vae.spec import VaeSpec
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_section, read_stage_params

PINS, STEPS, ROUNDS = 256, 6, 7
KL_CHANNELS = (32, 64, 64)  # at cells of 4 pixels, as params.yaml has them


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """The sections of params.yaml that matter here."""

    frames: FrameSpec
    text: TextSpec
    vae: VaeSpec
    denoiser: DenoiserSpec
    diffusion: DiffusionSpec
    encode: EncodingSpec
    train: TrainSpec


def read_sizes() -> Sizes:
    """Of params.yaml; square pictures only, which is all that the example knows."""
    sections = load_sections()
    params = read_stage_params(load_stage("train_base"), sections)
    train = params["training"].resolve(params["train_base"].train)
    found = Sizes(
        frames=read_section(FrameSpec, "frames", sections),
        text=read_section(TextSpec, "text", sections),
        vae=read_section(VaeSpec, "vae", sections),
        denoiser=read_section(DenoiserSpec, "denoiser", sections),
        diffusion=read_section(DiffusionSpec, "diffusion", sections),
        encode=read_section(EncodingSpec, "encode", sections),
        train=dataclasses.replace(
            train, steps=STEPS, warmup_steps=0, ema=(), checkpoint_every=STEPS, log_every=STEPS, sample_every=STEPS
        ),
    )
    square = found.frames.side, found.frames.side
    return dataclasses.replace(found, frames=dataclasses.replace(found.frames, buckets=(square,)))


def make_denoiser(of: Sizes) -> UNet2DConditionModel:
    torch.manual_seed(0)
    width, pooled = compute_text_widths([of.text.first, of.text.second])
    return build_denoiser(
        of.denoiser,
        latent_channels=of.vae.latent_channels,
        sample_size=of.frames.side // of.vae.factor,
        text_width=width,
        pooled_width=pooled,
    )


class ExampleDataset(Dataset[dict[str, object]]):
    """Pins as the example's data set gives them: encoded pictures, decoded by Pillow and transformed whenever they are
    read."""

    def __init__(self, rows: Sequence[dict[str, object]], side: int) -> None:
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

    def __getitem__(self, index: int) -> dict[str, object]:
        row = self.rows[index]
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(row["image"])))  # type: ignore[arg-type]
        return {"pixels": self.transform(image.convert("RGB")), "text": row["alt_text"] or row["title"] or ""}


def build_example_run(
    of: Sizes, rows: Sequence[dict[str, object]], vae: Vae, towers: Sequence[TextTower], half: bool
) -> Callable[[], float]:
    """Seconds of STEPS steps of the example's loop; `half`: under the autocast of `--mixed_precision bf16`, spelled
    out, because accelerate knows one precision a process."""
    accelerator = Accelerator(cpu=True)
    unet = make_denoiser(of)
    unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=of.train.learning_rate, weight_decay=of.train.weight_decay)
    noising = DDPMScheduler(num_train_timesteps=of.diffusion.train_timesteps)
    size = of.train.batch_size
    unet, optimizer, loader, schedule = accelerator.prepare(
        unet,
        optimizer,
        DataLoader(ExampleDataset(rows, of.frames.side), batch_size=size, shuffle=True, drop_last=True),
        get_scheduler("constant", optimizer),
    )
    side = of.frames.side
    size_ids = torch.tensor([[side, side, 0, 0, side, side]]).repeat(size, 1)
    batches = iterate_forever(loader)

    def run() -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            batch = next(batches)
            with accelerator.accumulate(unet):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    with torch.no_grad():
                        latents = vae.encode(batch["pixels"]).latent_dist.sample() * vae.config["scaling_factor"]
                    noise = torch.randn_like(latents)
                    times = torch.randint(0, noising.config["num_train_timesteps"], (size,))
                    noisy = noising.add_noise(latents, noise, times)
                    states, pooled = encode_prompts(towers, batch["text"])
                    added = {"text_embeds": pooled, "time_ids": size_ids}
                    prediction = unet(noisy, times, states, added_cond_kwargs=added).sample
                loss = F.mse_loss(prediction.float(), noise.float(), reduction="mean")
                accelerator.gather(loss.repeat(size)).mean().item()  # for the tracker
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            loss.detach().item()  # for the progress bar
        return time.perf_counter() - started

    return run


def iterate_forever(loader: DataLoader[dict[str, object]]) -> Iterator[dict]:
    while True:
        yield from loader


def build_canvas_run(of: Sizes, shards: Path, vae: Vae, work: Path, precision: Precision) -> Callable[[], float]:
    """Seconds of STEPS steps of our loop, as it reports them: without building and saving the model."""
    train = dataclasses.replace(of.train, precision=precision)
    rows = ShardRows(shards)
    columns = {name: name for name in TEXT_TO_IMAGE_COLUMNS}
    batches = rows.build_batches(rows.index, columns, of.train.batch_size, of.train.seed)
    objective = DenoisingObjective(of.diffusion, get_latent_scale(vae), captions=1, caption_dropout=0.1, inpaint=False)
    unet = make_denoiser(of)

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=work) as checkpoints:
            fitted = fit(
                unet, objective, PrefetchedBatches(batches), train, checkpoints=Path(checkpoints), log=lambda *_: None
            )
        return STEPS * of.train.batch_size / fitted.images_per_second

    return run


def write_pin_shards(of: Sizes, pins: Path, ids: Sequence[str], encoders: Encoders, work: Path) -> Path:
    """Shards of the pins, with random masks only: this is text-to-image."""
    masks = work / "masks"
    tables.write(masks, [], tables.MASKS)
    captions = {pin_id: [f"a {pin_id}"] for pin_id in ids}
    samples = PinSamples(pins, masks, [(pin_id, 0) for pin_id in ids], captions, encoders, of.encode, of.frames)
    write_shards(work / "shards", len(ids), samples, work=work / "parts", rows_per_shard=of.encode.rows_per_shard)
    return work / "shards"


def read_first_pins(pins: Path) -> list[dict[str, object]]:
    """Readable ones."""
    rows = []
    for batch in tables.read_batches(pins, ["pin_id", "image", "title", "alt_text"]):
        for row in batch.to_pylist():
            try:
                decode_image(row["image"])
            except ValueError:
                continue
            rows.append(row)
            if len(rows) == PINS:
                return rows
    return rows


def main(arguments: Sequence[str]) -> int:
    pins = Path(arguments[0] if arguments else "artifacts/pins")
    if not pins.is_dir():
        print(f"{pins} is missing: run `make demo` first, or name a table of pins", file=sys.stderr)
        return 1
    of, rows = read_sizes(), read_first_pins(pins)
    torch.manual_seed(1)
    clips = build_clip(of.text.first).eval(), build_clip(of.text.second).eval()
    towers = TextTower.from_clip(clips[0], of.text.first), TextTower.from_clip(clips[1], of.text.second)
    vae = build_vae(of.vae, sample_size=of.frames.side).eval().requires_grad_(False)
    stock = AutoencoderKL(
        block_out_channels=KL_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(KL_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(KL_CHANNELS),
        latent_channels=of.vae.latent_channels,
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shards = write_pin_shards(of, pins, [str(row["pin_id"]) for row in rows], Encoders(vae, clips, towers), work)
        stock.eval().requires_grad_(False)
        takers = {
            "ours_fp32": build_canvas_run(of, shards, vae, work, "fp32"),
            "ours_bf16": build_canvas_run(of, shards, vae, work, "bf16"),
            "example_fp32": build_example_run(of, rows, vae, towers, half=False),
            "example_fp32_autoencoder_kl": build_example_run(of, rows, stock, towers, half=False),
            "example_bf16": build_example_run(of, rows, vae, towers, half=True),
            "example_bf16_autoencoder_kl": build_example_run(of, rows, stock, towers, half=True),
        }
        seconds = {name: [] for name in takers}
        for turn in range(ROUNDS + 1):
            for name, run in takers.items():
                taken = run()
                if turn:  # the first turn warms up
                    seconds[name].append(taken)
    images = STEPS * of.train.batch_size
    speed = {name: images / statistics.median(of_name) for name, of_name in seconds.items()}
    figures = {
        "threads": torch.get_num_threads(),
        "batch_size": of.train.batch_size,
        "denoiser_parameters": sum(weight.numel() for weight in make_denoiser(of).parameters()),
        "images_per_second": speed,
        "spread": {name: float(np.ptp(values) / np.median(values)) for name, values in seconds.items()},
        "auto": resolve_precision("auto", torch.device("cpu")),
        "speedups": {
            f"{mine} / {theirs}": speed[mine] / speed[theirs]
            for mine in takers
            for theirs in takers
            if mine.startswith("ours") and theirs.startswith("example")
        },
    }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
