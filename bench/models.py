"""Models of random weights, which cost the same as trained ones, with the sizes of params.yaml."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import AutoencoderKL
from open_clip import CLIP

from canvas.clip.model import TextTower, build_clip, compute_text_widths
from canvas.clip.spec import TextSpec
from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import build_denoiser
from canvas.denoiser.spec import DenoiserSpec
from canvas.train.spec import TrainSpec
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_section, read_stage_params

KL_CHANNELS = (32, 64, 64, 64)  # widths of an AutoencoderKL with cells of 8 pixels, as params.yaml has them


def build_random_denoiser(*, latent_channels: int, sample_size: int, profile: str = "demo") -> Denoiser:
    """Build the text-to-image denoiser of a profile; always the same weights."""
    sections = load_sections(profile)
    text = read_section(TextSpec, "text", sections)
    width, pooled = compute_text_widths(text)
    torch.manual_seed(0)
    return build_denoiser(
        read_section(DenoiserSpec, "denoiser", sections),
        latent_channels=latent_channels,
        sample_size=sample_size,
        text_width=width,
        pooled_width=pooled,
    )


def read_train_spec(steps: int, profile: str = "demo") -> TrainSpec:
    """Read how train_base trains, for so many steps: no averages, samples and checkpoints at the end alone."""
    params = read_stage_params(load_stage("train_base"), load_sections(profile))
    train: TrainSpec = params["training"].resolve(params["train_base"].train)
    return replace(
        train, steps=steps, warmup_steps=0, ema=(), checkpoint_every=steps, log_every=steps, sample_every=steps
    )


def build_random_kl_autoencoder(latent_channels: int) -> AutoencoderKL:
    """Build an autoencoder of the kind that diffusers' own pipelines and examples load."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=KL_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * len(KL_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(KL_CHANNELS),
        latent_channels=latent_channels,
        scaling_factor=1.0,
    ).eval()


def build_random_text_encoders() -> tuple[tuple[CLIP, CLIP], tuple[TextTower, TextTower]]:
    """Build the two text-image encoders and their text towers."""
    text = read_section(TextSpec, "text", load_sections())
    first, second = build_clip(text.first).eval(), build_clip(text.second).eval()
    return (first, second), (TextTower.from_clip(first, text.first), TextTower.from_clip(second, text.second))
