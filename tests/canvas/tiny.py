"""The smallest real models of each kind, shared by the tests of models, diffusion and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
    SchedulerMixin,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from canvas.clip.spec import ClipSpec
from canvas.denoiser.dit.spec import DitSpec
from canvas.denoiser.family import Denoiser, DenoiserCondition
from canvas.denoiser.loading import build_denoiser, get_family
from canvas.denoiser.sampling import Condition, LatentSampler, LatentSelector, Window
from canvas.denoiser.spec import DenoiserSpec
from canvas.denoiser.unet.spec import UNetSpec
from canvas.vae.model import LatentScale

TEXT_WIDTH, POOLED_WIDTH = 64, 32
MIDDLE = torch.tensor(500.0)

UNET = UNetSpec(
    channels=(32, 64),
    layers_per_block=1,
    transformer_layers=(0, 1),
    heads=(2, 4),
    size_embedding=8,
    norm_groups=32,
)
DENOISER = DenoiserSpec(kind="unet", init_from=None, unet=UNET, dit=None)
DIT = DitSpec(heads=2, head_width=16, double_blocks=2, single_blocks=1, zero_modulation=False, rope_widths=(4, 6, 6))
TRANSFORMER = DenoiserSpec(kind="dit", init_from=None, unet=None, dit=DIT)
CLIP = ClipSpec(
    embed_dim=16,
    quick_gelu=True,
    image_size=16,
    patch_size=8,
    vision_width=32,
    vision_layers=1,
    vision_head_width=16,
    vision_mlp_ratio=2.0,
    vision_patch_dropout=0.0,
    text_width=32,
    text_layers=2,
    text_heads=2,
    context_length=12,
    pad_with_end=True,
    init_from=None,
)
OTHER_CLIP = replace(CLIP, text_width=16, embed_dim=24, quick_gelu=False, pad_with_end=False)
PUBLIC_TEXT = {
    "hidden_size": TEXT_WIDTH // 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": 12,
    "projection_dim": POOLED_WIDTH,
    "vocab_size": 49408,
    "bos_token_id": 0,
    "eos_token_id": 2,  # of before transformers' pull request 24773, as SDXL's
    "pad_token_id": 1,
}
"""Sizes of a public text tower, in transformers' words."""


def denoiser(latent_channels: int = 4, seed: int = 0) -> UNet2DConditionModel:
    """A text-to-image UNet of SDXL's kind with 8x8 latents, in eval mode."""
    torch.manual_seed(seed)
    return build_denoiser(
        DENOISER, latent_channels=latent_channels, sample_size=8, text_width=TEXT_WIDTH, pooled_width=POOLED_WIDTH
    ).eval()


def transformer(latent_channels: int = 4, seed: int = 0) -> FluxTransformer2DModel:
    """A text-to-image transformer of Flux's class for latents of an even size, in eval mode."""
    torch.manual_seed(seed)
    return build_denoiser(
        TRANSFORMER, latent_channels=latent_channels, sample_size=8, text_width=TEXT_WIDTH, pooled_width=POOLED_WIDTH
    ).eval()


def conditions(batch: int, latent_channels: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random latents and the text and size conditioning of `batch` samples."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(batch, latent_channels, 8, 8, generator=draw),
        "text_states": torch.randn(batch, 7, TEXT_WIDTH, generator=draw),
        "text_pooled": torch.randn(batch, POOLED_WIDTH, generator=draw),
        "sizes": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(batch, 1),
    }


def predict(unet: UNet2DConditionModel, sample: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The UNet's output for `sample` at timestep 500."""
    with torch.no_grad():
        return unet(
            sample,
            torch.tensor(500.0),
            given["text_states"],
            added_cond_kwargs={"text_embeds": given["text_pooled"], "time_ids": given["sizes"]},
        ).sample


def answer(
    model: Denoiser,
    sample: torch.Tensor,
    given: dict[str, torch.Tensor],
    images: list[torch.Tensor] | None = None,
    timestep: torch.Tensor = MIDDLE,
) -> torch.Tensor:
    """The output of a denoiser of any family for `sample`."""
    condition = DenoiserCondition(
        states=given["text_states"], pooled=given["text_pooled"], sizes=given["sizes"], images=images
    )
    with torch.no_grad():
        return get_family(model).predict(model, sample, timestep, condition)


def sample_latents(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    noise: torch.Tensor,
    condition: Condition | Sequence[Window],
    *,
    selectors: Mapping[int, LatentSelector] | None = None,
    **settings: float,
) -> torch.Tensor:
    """Latents by the sampler, on the scale that the denoiser knows."""
    channels = noise.shape[1]
    scale = LatentScale(torch.zeros(channels), torch.ones(channels), 1.0)
    sampler = LatentSampler(denoiser=unet, scheduler=scheduler, scale=scale, **settings)
    return sampler.sample(noise, condition, selectors=selectors)


def sdxl_inpaint_pipeline(unet: UNet2DConditionModel) -> StableDiffusionXLInpaintPipeline:
    """Stock diffusers' SDXL inpainting pipeline of tiny widths round `unet`, random, without tokenizers."""
    torch.manual_seed(2)
    text = {
        "hidden_size": TEXT_WIDTH // 2,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 1000,
        "projection_dim": POOLED_WIDTH,
    }
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    )
    return StableDiffusionXLInpaintPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text)).eval(),
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    )


def flux_fill_pipeline(transformer: FluxTransformer2DModel, scheduler: SchedulerMixin) -> FluxFillPipeline:
    """Stock diffusers' Flux inpainting pipeline of tiny widths round `transformer`, random, without text encoders. Its
    autoencoder's posteriors have next to no variance, so that images have one code each."""
    torch.manual_seed(2)
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.7,
        shift_factor=0.1,
    )
    with torch.no_grad():
        vae.quant_conv.weight[4:].zero_()
        vae.quant_conv.bias[4:].fill_(-100)
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxFillPipeline(transformer=transformer, scheduler=scheduler, vae=vae.eval(), **none)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def public_sdxl(directory: Path) -> StableDiffusionXLPipeline:
    """A pipeline with the configs of stabilityai/stable-diffusion-xl-base-1.0 at tiny widths, random, made and saved
    into `directory` by stock libraries alone."""
    torch.manual_seed(3)
    made = StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=[1, 1],
            attention_head_dim=[2, 4],
            cross_attention_dim=TEXT_WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * 8,
        ).eval(),
        vae=AutoencoderKL(
            block_out_channels=[32, 64, 64, 64],
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=2,
            sample_size=64,
            scaling_factor=0.13025,
        ).eval(),
        text_encoder=CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **PUBLIC_TEXT)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", **PUBLIC_TEXT)).eval(),
        tokenizer=None,
        tokenizer_2=None,
        scheduler=EulerDiscreteScheduler(),
    )
    made.save_pretrained(directory)
    return made
