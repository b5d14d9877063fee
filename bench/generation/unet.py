"""The UNet: our pipeline against diffusers' SDXL inpainting pipeline, and what each saving is worth.

Both have the same denoiser with a LoRA on every layer, autoencoder, scheduler, steps, guidance and text states, in fp32
but where bf16 is named: there our denoiser alone is in bf16, as in `generate` where the device multiplies it; all of
theirs, as by `.to(torch.bfloat16)`. Weights are random, sizes those of profile unet, whose class that pipeline has.
Text encoding is in our time alone: diffusers gets the text states. It has no conditional decoder, so ours is only in
the runs that name it, as the assembled pipeline has it.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from PIL import Image

from bench import models
from bench.measurement import measure_in_turns, measure_seconds
from canvas.clip.model import encode_prompts
from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec
from canvas.denoiser import sampling
from canvas.denoiser.loading import add_inpaint_channels
from canvas.denoiser.lora import add_lora, load_lora, merge_lora, save_lora
from canvas.inference.pipeline import CanvasPipeline
from canvas.train.spec import Precision
from lifecycle.declare.params import load_sections, read_section

CANDIDATES, STEPS, GUIDANCE = 8, 20, 5.0
PROMPT = "a red mug, on the waterfront at sunset"
SIDE, CELL = 128, 8  # pixels of an image and of a latent cell


def build_inpaint_denoiser(lora: Path) -> UNet2DConditionModel:
    """Build the inpainting denoiser on latents of 4 channels, with a LoRA on every layer; make it if it is missing."""
    network = models.build_random_denoiser(latent_channels=4, sample_size=SIDE // CELL, profile="unet")
    unet = add_inpaint_channels(network, CELL)
    if not lora.exists():
        rank = load_sections("unet")["train_backdrop"]["lora"]["rank"]
        trained = add_lora(copy.deepcopy(unet), rank=rank, alpha=rank)
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        save_lora(trained, lora)
    return load_lora(unet, lora).eval()


def build_product() -> tuple[Image.Image, Image.Image]:
    """Return an image and its mask, white = product."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[32:96, 48:80] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


def build_runs(lora: Path) -> dict[str, Callable[[], object]]:
    """Build the calls that are compared, by name."""
    _, towers = models.build_random_text_encoders()
    vae, (image, mask) = models.build_random_kl_autoencoder(4), build_product()
    states, pooled = encode_prompts(towers, [PROMPT])
    scheduler = EulerDiscreteScheduler(timestep_spacing="trailing")

    def build_stock_run(unet: UNet2DConditionModel, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
        pipeline = StableDiffusionXLInpaintPipeline(
            vae=copy.deepcopy(vae),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=copy.deepcopy(scheduler),
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

    def build_canvas_run(
        unet: UNet2DConditionModel, decoder: ConditionalDecoder | None = None, precision: Precision = "fp32"
    ) -> Callable[[], object]:
        pipeline = CanvasPipeline(
            unet=unet,
            vae=vae,
            text_encoder=towers[0],
            text_encoder_2=towers[1],
            scheduler=copy.deepcopy(scheduler),
            decoder=decoder,
        )
        pipeline.set_progress_bar_config(disable=True)
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

    def patch_run(run: Callable[[], object], owner: object, name: str, value: object) -> Callable[[], object]:
        def run_patched() -> object:
            with patch.object(owner, name, value):
                return run()

        return run_patched

    def encode_each(run: Callable[[], object]) -> Callable[[], object]:
        return lambda: ([encode_prompts(towers, [PROMPT]) for _ in range(CANDIDATES - 1)], run())

    spec = read_section(DecoderSpec, "decoder", load_sections())
    decoder = ConditionalDecoder.from_vae(vae, replace(spec, channels=models.KL_CHANNELS)).eval()
    encode_once = decoder.encode_condition

    def encode_condition_of_each(*parts: torch.Tensor) -> list[torch.Tensor]:
        return encode_once(*(part.expand(CANDIDATES, -1, -1, -1) for part in parts))

    merged = merge_lora(build_inpaint_denoiser(lora))
    return {
        "diffusers": build_stock_run(build_inpaint_denoiser(lora)),
        "diffusers, bf16": build_stock_run(build_inpaint_denoiser(lora), torch.bfloat16),
        "diffusers, LoRA fused": build_stock_run(merged),
        "diffusers, LoRA fused, bf16": build_stock_run(copy.deepcopy(merged), torch.bfloat16),
        "canvas": build_canvas_run(merged),
        "canvas, bf16": build_canvas_run(copy.deepcopy(merged), precision="bf16"),
        "canvas, LoRA not merged": build_canvas_run(build_inpaint_denoiser(lora)),
        "canvas, keys and values each step": patch_run(
            build_canvas_run(merged), sampling, "cache_projections", nullcontext
        ),
        "canvas, text for each candidate": encode_each(build_canvas_run(merged)),
        "canvas, conditional decoder": build_canvas_run(merged, decoder),
        "canvas, conditional decoder, bf16": build_canvas_run(copy.deepcopy(merged), decoder, precision="bf16"),
        "canvas, known region for each candidate": patch_run(
            build_canvas_run(merged, decoder), decoder, "encode_condition", encode_condition_of_each
        ),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Return medians of `rounds` rounds in one process, and what they say."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: partial(measure_seconds, run) for name, run in build_runs(Path(folder) / "lora").items()}
        medians = {name: statistics.median(values) for name, values in measure_in_turns(runs, rounds).items()}
    base = medians["canvas"]
    return {
        "candidates": CANDIDATES,
        "steps": STEPS,
        "seconds": medians,
        "faster": {
            f"{ours} / {other}": medians[other] / medians[ours]
            for ours in ("canvas", "canvas, bf16", "canvas, conditional decoder", "canvas, conditional decoder, bf16")
            for other in medians
            if other.startswith("diffusers")
        },
        "saved_by_merging": medians["canvas, LoRA not merged"] - base,
        "saved_by_projecting_once": medians["canvas, keys and values each step"] - base,
        "saved_by_encoding_once": medians["canvas, text for each candidate"] - base,
        "saved_by_reading_the_known_region_once": medians["canvas, known region for each candidate"]
        - medians["canvas, conditional decoder"],
    }
