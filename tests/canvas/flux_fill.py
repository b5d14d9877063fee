"""A repository of the Flux-Fill class at tiny widths."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxFillPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.canvas import tiny
from tests.canvas.inference.test_public_parts import README, build_tokenizer
from tests.canvas.public_models import build_t5

CHANNELS, T5_WIDTH, POOLED_WIDTH = 16, 48, 32
DIT = {"heads": 2, "head_width": 16, "double_blocks": 2, "single_blocks": 1, "rope_widths": [4, 6, 6]}
DIT |= {"zero_modulation": False}
VAE_WIDTHS = (32, 32, 32, 32)


def write_flux_fill(folder: Path) -> None:
    """As FLUX.1-Fill-dev: made, and saved, by stock libraries alone, with a model card.

    The autoencoder's posteriors have next to no variance, so that images have one code each: stock draws it, here it is
    the mean.
    """
    torch.manual_seed(4)
    t5, tokenizer = build_t5(T5_WIDTH)
    vae = AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        vae.encoder.conv_out.weight[CHANNELS:].zero_()
        vae.encoder.conv_out.bias[CHANNELS:].fill_(-100)
    text = CLIPTextConfig(**tiny.PUBLIC_TEXT | {"hidden_size": POOLED_WIDTH}, hidden_act="quick_gelu")
    stock = FluxFillPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=384,
            out_channels=64,
            num_layers=2,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=POOLED_WIDTH,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        text_encoder_2=t5,
        tokenizer=build_tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    )
    stock.save_pretrained(folder)
    (folder / "README.md").write_text(README)
