"""Eight candidates: our pipeline against diffusers' own SDXL inpainting pipeline, and what each saving is worth.

    OMP_NUM_THREADS=2 python -m bench.generation

Both have the same denoiser with a LoRA on every layer, autoencoder, scheduler, steps, guidance and text states, in fp32
but where bf16 is named (ours holds the denoiser in it, as `generate` does where the device multiplies it; theirs the
autoencoder, too, as `.to(torch.bfloat16)` has it); all take turns in one process, so that a busy machine slows all;
figures are medians. Weights are random (they cost the same as trained ones), sizes those of params.yaml. diffusers is
given the text states: encoding them is in our time alone. It has no conditional decoder either, so ours is in the runs
that name it, as the assembled pipeline has it. It prints JSON.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import TextTower, build_clip, compute_text_widths, encode_prompts
from canvas.clip.spec import TextSpec
from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec
from canvas.denoiser import sampling as denoise
from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
from canvas.denoiser.spec import DenoiserSpec
from canvas.denoiser.unet import add_inpaint_channels, build_denoiser
from canvas.inference.pipeline import CanvasPipeline
from canvas.train.spec import Precision
from lifecycle.declare.params import load_sections, read_section

CANDIDATES, STEPS, GUIDANCE, ROUNDS = 8, 20, 5.0, 5
PROMPT = "a red mug, on the waterfront at sunset"
SIDE, CELL = 64, 4  # pixels of a picture and of a latent cell


def make_denoiser(text: TextSpec, directory: Path) -> UNet2DConditionModel:
    """The inpainting denoiser of params.yaml on latents of 4 channels, with the LoRA of `directory` on it."""
    sections = load_sections()
    width, pooled = compute_text_widths([text.first, text.second])
    torch.manual_seed(0)
    unet = add_inpaint_channels(
        build_denoiser(
            read_section(DenoiserSpec, "denoiser", sections),
            latent_channels=4,
            sample_size=SIDE // CELL,
            text_width=width,
            pooled_width=pooled,
        )
    )
    if not directory.exists():
        rank = sections["train_backdrop"]["lora"]["rank"]
        trained = add_lora(copy.deepcopy(unet), rank=rank, alpha=rank)
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        save_lora(trained, directory)
    return load_lora(unet, directory).eval()


def make_autoencoder() -> AutoencoderKL:
    """One that diffusers' pipeline knows, of cells as large as params.yaml has them."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        scaling_factor=1.0,
        sample_size=SIDE,
    ).eval()


def make_decoder(vae: AutoencoderKL) -> ConditionalDecoder:
    """The conditional decoder of params.yaml, with a width for each resolution of `vae`."""
    spec = read_section(DecoderSpec, "decoder", load_sections())
    return ConditionalDecoder.from_vae(
        vae, dataclasses.replace(spec, channels=tuple(vae.config.block_out_channels))
    ).eval()


def make_product() -> tuple[Image.Image, Image.Image]:
    """A picture and its mask, white = product."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 24:40] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def make_pipeline(
    unet: UNet2DConditionModel, vae: AutoencoderKL, towers: list[TextTower], decoder: ConditionalDecoder | None = None
) -> CanvasPipeline:
    pipeline = CanvasPipeline(
        unet=unet,
        vae=vae,
        text_encoder=towers[0],
        text_encoder_2=towers[1],
        scheduler=EulerDiscreteScheduler(timestep_spacing="trailing"),
        decoder=decoder,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_runs(place: Path) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    text = read_section(TextSpec, "text", load_sections())
    towers = [TextTower.from_clip(build_clip(spec), spec) for spec in (text.first, text.second)]
    vae, (image, mask) = make_autoencoder(), make_product()
    states, pooled = encode_prompts(towers, [PROMPT])

    def stock(unet: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
        pipeline = StableDiffusionXLInpaintPipeline(
            vae=copy.deepcopy(vae),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler(timestep_spacing="trailing"),
        )
        pipeline.to(dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        background = Image.fromarray(255 - np.array(mask))
        return lambda: pipeline(
            image=image,
            mask_image=background,
            height=SIDE,
            width=SIDE,
            strength=1.0,
            prompt_embeds=states.to(dtype),
            pooled_prompt_embeds=pooled.to(dtype),
            negative_prompt_embeds=torch.zeros_like(states, dtype=dtype),
            negative_pooled_prompt_embeds=torch.zeros_like(pooled, dtype=dtype),
            num_images_per_prompt=CANDIDATES,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(0),
        )

    def canvas(
        unet: UNet2DConditionModel, decoder: ConditionalDecoder | None = None, precision: Precision = "fp32"
    ) -> Callable[[], object]:
        pipeline = make_pipeline(unet, vae, towers, decoder)
        pipeline.set_precision(precision)
        return lambda: pipeline(
            image,
            PROMPT,
            mask=mask,
            guidance_scale=GUIDANCE,
            num_inference_steps=STEPS,
            num_candidates=CANDIDATES,
            seed=0,
        )

    def projecting(run: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with patch.object(denoise, "cache_projections", lambda unet: contextlib.nullcontext()):
                return run()

        return call

    def encoding(run: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            for _ in range(CANDIDATES - 1):
                encode_prompts(towers, [PROMPT])
            return run()

        return call

    def reading(run: Callable[[], object], decoder: ConditionalDecoder) -> Callable[[], object]:
        once = decoder.known

        def each(*parts: torch.Tensor) -> list[torch.Tensor]:
            return once(*(part.expand(CANDIDATES, -1, -1, -1) for part in parts))

        def call() -> object:
            with patch.object(decoder, "known", each):
                return run()

        return call

    decoder = make_decoder(vae)
    merged = merge_lora(make_denoiser(text, place))
    return {
        "diffusers": stock(make_denoiser(text, place)),
        "diffusers, bf16": stock(make_denoiser(text, place), torch.bfloat16),
        "diffusers, LoRA fused": stock(merged),
        "diffusers, LoRA fused, bf16": stock(copy.deepcopy(merged), torch.bfloat16),
        "canvas": canvas(merged),
        "canvas, bf16": canvas(copy.deepcopy(merged), precision="bf16"),
        "canvas, LoRA not merged": canvas(make_denoiser(text, place)),
        "canvas, keys and values each step": projecting(canvas(merged)),
        "canvas, text for each candidate": encoding(canvas(merged)),
        "canvas, conditional decoder": canvas(merged, decoder),
        "canvas, conditional decoder, bf16": canvas(copy.deepcopy(merged), decoder, precision="bf16"),
        "canvas, known region for each candidate": reading(canvas(merged, decoder), decoder),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        compared = build_runs(Path(place) / "lora")
        seconds: dict[str, list[float]] = {name: [] for name in compared}
        for turn in tqdm(range(ROUNDS + 1), unit="round"):  # the first warms up
            for name, run in compared.items():
                clock = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - clock)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = medians["canvas"]
    figures = {
        "candidates": CANDIDATES,
        "steps": STEPS,
        "seconds": medians,
        "faster": {
            f"{mine} / {theirs}": medians[theirs] / medians[mine]
            for mine in ("canvas", "canvas, bf16", "canvas, conditional decoder", "canvas, conditional decoder, bf16")
            for theirs in compared
            if theirs.startswith("diffusers")
        },
        "saved_by_merging": medians["canvas, LoRA not merged"] - base,
        "saved_by_projecting_once": medians["canvas, keys and values each step"] - base,
        "saved_by_encoding_once": medians["canvas, text for each candidate"] - base,
        "saved_by_reading_the_known_region_once": medians["canvas, known region for each candidate"]
        - medians["canvas, conditional decoder"],
    }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
