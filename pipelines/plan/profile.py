"""The params of a profile that the plan reads, and its networks without memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import torch
from torch import nn
from transformers import T5EncoderModel

from canvas.align.spec import AlignParams
from canvas.captioner.spec import CaptionerTrainingSpec
from canvas.clip.model import TextTower, build_clip, compute_text_widths
from canvas.clip.spec import TextSpec
from canvas.clip.t5 import build_t5_config
from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.spec import DecoderSpec, TrainDecoderParams
from canvas.denoiser.family import Denoiser
from canvas.denoiser.image_prompt import add_image_prompt, get_image_prompt_state
from canvas.denoiser.loading import add_inpaint_channels, build_denoiser
from canvas.denoiser.lora import add_lora
from canvas.denoiser.spec import DenoiserSpec, DenoiserTraining, HeldOutSpec, RecommendedSampling, WholeTraining
from canvas.pins.frames import FrameSpec
from canvas.reward.model import RewardModel, build_reward_config, get_tower_config
from canvas.reward.spec import RewardSpec
from canvas.segmenter.spec import SegmenterTrainingSpec
from canvas.shards.spec import EncodingSpec
from canvas.styles.spec import MineStylesParams
from canvas.train.spec import Training, TrainSpec
from canvas.uve.spec import UveSpec, compute_embedding_width
from canvas.vae.model import Vae, build_vae
from canvas.vae.spec import PerceptualSpec, VaeSpec
from components.train_backdrop import TrainBackdropParams
from components.train_ip_adapter import TrainIpAdapterParams
from components.tune_engaged import TuneEngagedParams
from lifecycle.declare.params import read_section
from pipelines.plan.memory import count_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Params sections by their names."""

    training: Training
    held_out: HeldOutSpec
    sampling: RecommendedSampling
    frames: FrameSpec
    perceptual: PerceptualSpec
    text: TextSpec
    uve: UveSpec
    vae: VaeSpec
    encode: EncodingSpec
    decoder: DecoderSpec
    denoiser: DenoiserSpec
    reward: RewardSpec
    mine_styles: MineStylesParams
    train_segmenter: SegmenterTrainingSpec
    train_captioner: CaptionerTrainingSpec
    train_decoder: TrainDecoderParams
    train_base: WholeTraining
    train_inpaint: WholeTraining
    train_backdrop: TrainBackdropParams
    tune_engaged: TuneEngagedParams
    align: AlignParams
    train_ip_adapter: TrainIpAdapterParams

    @classmethod
    def read(cls, sections: Mapping[str, Any]) -> Profile:
        """Return the sections of a profile; `ValueError` for a missing or wrong one."""
        return cls(**read_arguments(cls, sections))

    @property
    def masks(self) -> int:
        """Precomputed masked latents of each pin."""
        return self.encode.random_masks + self.encode.product_masks

    @property
    def latent_side(self) -> int:
        """Latent cells on a side of the square frame."""
        return self.frames.side // self.vae.factor

    @property
    def text_tokens(self) -> int:
        """Text states of a prompt."""
        return self.text.t5.context_length if self.text.t5 else self.text.first.context_length

    def resolve(self, stage: DenoiserTraining) -> TrainSpec | None:
        """Return how a stage trains a denoiser; None: it is skipped."""
        return stage.resolve(self.training, self.held_out) if stage.train else None

    def compute_embedding_width(self, source: str) -> int:
        """Return the numbers of an image's embedding "uve", "clip" or "uve+clip"."""
        return compute_embedding_width(source, self.uve, self.text.second)


def read_arguments(function: Callable[..., Any], sections: Mapping[str, Any], **sizes: object) -> dict[str, Any]:
    """Return the arguments of a function: `sizes` by name, and params sections as its signature types them."""
    hints = get_type_hints(function)
    hints.pop("return", None)
    return {name: sizes[name] if name in sizes else read_section(hint, name, sections) for name, hint in hints.items()}


def compute_images_per_pass(stage: str, train: TrainSpec, gpus: int) -> int:
    """Return the images that each of so many GPUs works on. `ValueError` if they do not divide the stage's batch."""
    if train.batch_size % (gpus * train.accumulate):
        raise ValueError(
            f"{stage}.train.batch_size is {train.batch_size}: {gpus} GPUs x {train.accumulate} accumulated passes do "
            "not divide it"
        )
    return train.batch_size // (gpus * train.accumulate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The networks of the system that its params describe, on the meta device."""

    denoiser: Denoiser
    inpaint: Denoiser
    lora: Denoiser
    vae: Vae
    decoder: ConditionalDecoder
    clips: tuple[Any, Any]
    t5: nn.Module | None
    reward: nn.Module


def build_models(profile: Profile) -> Models:
    """Return the networks of a profile, random and without memory: nothing is loaded."""
    first, second = (replace(spec, init_from=None) for spec in (profile.text.first, profile.text.second))
    t5 = profile.text.t5
    vae, denoiser = replace(profile.vae, init_from=None), replace(profile.denoiser, init_from=None)
    width, pooled = compute_text_widths(profile.text)
    size = {
        "latent_channels": vae.latent_channels,
        "sample_size": profile.latent_side,
        "text_width": width,
        "pooled_width": pooled,
    }
    reward = build_reward_config(profile.reward)
    with torch.device("meta"):
        autoencoder = build_vae(vae, sample_size=profile.frames.side)
        clips = build_clip(first), build_clip(second)
        places = {"first": (clips[0], first), "second": (clips[1], second)}
        tower = TextTower.from_clip(*places[profile.reward.text_encoder])
        bare = add_inpaint_channels(build_denoiser(denoiser, **size), vae.factor)
        return Models(
            denoiser=build_denoiser(denoiser, **size),
            inpaint=add_inpaint_channels(build_denoiser(denoiser, **size), vae.factor),
            lora=add_lora(bare, rank=profile.train_backdrop.lora.rank, alpha=1),
            vae=autoencoder,
            decoder=ConditionalDecoder.from_vae(autoencoder, profile.decoder),
            clips=clips,
            t5=T5EncoderModel(build_t5_config(t5)).eval() if t5 else None,
            reward=RewardModel(**reward, text_config=get_tower_config(tower)),
        )


def count_image_prompt_parameters(denoiser: Denoiser, image_width: int) -> int:
    """Return the number of parameters of the adapter that reads embeddings of so many numbers."""
    with torch.device("meta"):
        adapted = add_image_prompt(copy.deepcopy(denoiser), image_width)
    return sum(parameter.numel() for parameter in get_image_prompt_state(adapted).values())


def count_trained_parameters(profile: Profile, models: Models) -> dict[str, int]:
    """Return stage -> number of parameters that it trains, of the stages whose averages are kept."""
    adapter, lora = profile.train_ip_adapter, count_parameters(models.lora, trainable=True)
    prompts = count_image_prompt_parameters(models.inpaint, profile.compute_embedding_width(adapter.source))
    beside = lora * adapter.lora.rank // profile.train_backdrop.lora.rank if adapter.lora else 0
    return {
        "train_base": count_parameters(models.denoiser),
        "train_inpaint": count_parameters(models.inpaint),
        "train_backdrop": lora,
        "train_ip_adapter": prompts + beside,
    }
