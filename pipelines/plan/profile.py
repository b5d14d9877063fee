"""The sizes of a run, read from a profile, and its networks without memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from canvas.clip.model import build_clip, compute_text_widths
from canvas.clip.spec import ClipSpec, TextSpec
from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec
from canvas.denoiser.lora import add_lora
from canvas.denoiser.spec import DenoiserSpec, DenoiserTraining, HeldOutSpec, LoraSpec
from canvas.denoiser.unet import add_inpaint_channels, build_denoiser
from canvas.pins.frames import FrameSpec
from canvas.reward.model import RewardModel
from canvas.reward.spec import RewardSpec
from canvas.shards.spec import EncodingSpec
from canvas.train.spec import Train, Training, TrainSpec
from canvas.uve.spec import UveSpec
from canvas.vae.model import Vae, build_vae
from canvas.vae.spec import VaeSpec
from lifecycle.declare.params import Sections

GIB = 2**30

Section = Callable[[str, Any], Any]
"""A reader of a file's sections: (dotted name, type) -> value of that type. It raises ValueError for a missing one."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The sizes of a run: from the profile, but for the GPUs and the pins."""

    side: int  # pixels of the training pictures
    gpus: int
    batch: int  # pictures a GPU works on at once
    captions: int  # of each pin
    masks: int  # precomputed masked latents of each pin
    views: int  # of each pin to train on
    averages: int  # EMA copies
    lora_rank: int
    image_width: int  # of the embedding that image prompts read
    pins: int


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """The networks of the system that its params describe, on the meta device."""

    denoiser: nn.Module
    inpaint: nn.Module
    lora: nn.Module
    vae: Vae
    decoder: ConditionalDecoder
    clips: tuple[Any, Any]
    reward: nn.Module


@dataclasses.dataclass(frozen=True, slots=True)
class Specs:
    """The model sections of a profile."""

    denoiser: DenoiserSpec
    vae: VaeSpec
    decoder: DecoderSpec
    text: TextSpec
    reward: RewardSpec


def reader_of(sections: Sections, name: str) -> Section:
    """Return a reader of sections; errors say that the file or profile `name` lacks one."""

    def section(path: str, kind: Any) -> Any:
        found: Any = sections
        for key in path.split("."):
            if not isinstance(found, dict) or key not in found:
                raise ValueError(f"{name} has no section {path!r}")
            found = found[key]
        return TypeAdapter(kind).validate_python(found)

    return section


def denoiser_spec(section: Section, stage: str) -> TrainSpec:
    """Return how a stage trains a denoiser, with the averages that it tracks."""
    params: DenoiserTraining = section(stage, DenoiserTraining)
    return params.resolve(section("training", Training), section("held_out", HeldOutSpec))


def train_spec(section: Section, stage: str) -> TrainSpec:
    """Return how a stage trains; `ValueError` if it trains nothing."""
    training: Training = section("training", Training)
    return training.resolve(section(f"{stage}.train", Train))


def read_specs(section: Section) -> Specs:
    """The model sections of a profile."""
    return Specs(
        section("denoiser", DenoiserSpec),
        section("vae", VaeSpec),
        section("decoder", DecoderSpec),
        section("text", TextSpec),
        section("reward", RewardSpec),
    )


def read_run(section: Section, gpus: int, pins: int) -> Run:
    """The sizes of the profile's inpainting run on so many GPUs."""
    train, encoding = denoiser_spec(section, "train_inpaint"), section("encode", EncodingSpec)
    return Run(
        side=section("frames", FrameSpec).side,
        gpus=gpus,
        batch=compute_images_per_pass("train_inpaint.train", train, gpus),
        captions=encoding.captions,
        masks=encoding.random_masks + encoding.product_masks,
        views=encoding.views,
        averages=len(train.ema),
        lora_rank=section("train_backdrop.lora", LoraSpec).rank,
        image_width=compute_embedding_width(section, section("train_ip_adapter.source", str)),
        pins=pins,
    )


def compute_images_per_pass(name: str, train: TrainSpec, gpus: int) -> int:
    """That each of so many GPUs works on. `ValueError` if they do not divide the batch of the section `name`."""
    if train.batch_size % (gpus * train.accumulate):
        raise ValueError(
            f"{name}.batch_size is {train.batch_size}: {gpus} GPUs x {train.accumulate} accumulated passes do not "
            "divide it"
        )
    return train.batch_size // (gpus * train.accumulate)


def compute_embedding_width(section: Section, source: str) -> int:
    """Of a picture's embedding "uve", "clip" or "uve+clip"."""
    width = {"uve": section("uve", UveSpec).embed_dim, "clip": section("text.second", ClipSpec).embed_dim}
    return sum(width[name] for name in source.split("+"))


def build_models(specs: Specs, run: Run) -> Models:
    """The networks of `specs`, random and without memory: nothing is loaded."""
    text = [dataclasses.replace(spec, init_from=None) for spec in (specs.text.first, specs.text.second)]
    width, pooled = compute_text_widths(text)
    denoiser = dataclasses.replace(specs.denoiser, init_from=None)
    vae = dataclasses.replace(specs.vae, init_from=None)
    size = {
        "latent_channels": vae.latent_channels,
        "sample_size": run.side // vae.factor,
        "text_width": width,
        "pooled_width": pooled,
    }
    reward = {name: getattr(specs.reward, name) for name in RewardSpec.__slots__ if name != "init_from"}
    with torch.device("meta"):
        autoencoder = build_vae(vae, sample_size=run.side)
        return Models(
            denoiser=build_denoiser(denoiser, **size),
            inpaint=add_inpaint_channels(build_denoiser(denoiser, **size)),
            lora=add_lora(add_inpaint_channels(build_denoiser(denoiser, **size)), rank=run.lora_rank, alpha=1),
            vae=autoencoder,
            decoder=ConditionalDecoder.from_vae(autoencoder, specs.decoder),
            clips=(build_clip(text[0]), build_clip(text[1])),
            reward=RewardModel(**reward),
        )


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, or of those that are trained."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)
