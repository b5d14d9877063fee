"""SDXL's UNet at any size, its inpainting form, and what it reads.

The inpainting UNet reads [noisy latents, hole, masked latents] along the channels, in the order of diffusers'
inpainting pipelines; *hole* is 1 where the denoiser generates, so it is 1 - mask at latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from canvas.denoiser.family import SIZE_IDS, DenoiserCondition
from canvas.denoiser.unet.spec import UNetSpec


def run_unet(
    unet: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, condition: DenoiserCondition
) -> torch.Tensor:
    """Return the prediction (N, C, h, w) for noisy latents, of inpainting with `build_inpaint_input`'s channels."""
    added = {"text_embeds": condition.pooled, "time_ids": condition.sizes}
    images = {} if condition.images is None else {"image_embeds": condition.images}
    prediction: torch.Tensor = unet(
        latents,
        timestep,
        encoder_hidden_states=condition.states,
        added_cond_kwargs=added | images,
        return_dict=False,
    )[0]
    return prediction


def build_unet_config(
    spec: UNetSpec, *, latent_channels: int, sample_size: int, text_width: int, pooled_width: int
) -> dict[str, Any]:
    """Return the diffusers config of a text-to-image UNet with SDXL's conditioning.

    Args:
        spec: Widths and depths.
        latent_channels: Channels of the latents.
        sample_size: Side of the latents in training.
        text_width: Channels of the concatenated hidden states.
        pooled_width: Channels of the pooled text.
    """
    attention = [layers > 0 for layers in spec.transformer_layers]
    return {
        "sample_size": sample_size,
        "in_channels": latent_channels,
        "out_channels": latent_channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if there else "DownBlock2D" for there in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attention)),
        "block_out_channels": spec.channels,
        "layers_per_block": spec.layers_per_block,
        "transformer_layers_per_block": tuple(max(layers, 1) for layers in spec.transformer_layers),
        "attention_head_dim": spec.heads,  # diffusers' name for the number of heads, see its issue 2011
        "cross_attention_dim": text_width,
        "use_linear_projection": True,
        "norm_num_groups": spec.norm_groups,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": spec.size_embedding,
        "projection_class_embeddings_input_dim": pooled_width + SIZE_IDS * spec.size_embedding,
    }


def check_architecture(actual: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Raise ValueError if a UNet's config is another than the params say; it may have the inputs of inpainting."""
    for key, expected in config.items():
        value: Any = actual.get(key)
        if key == "in_channels" and value == count_inpaint_channels(config["out_channels"]):
            continue
        if key == "sample_size" and value != expected:
            raise ValueError(
                f"{source!r} has sample_size {value}, frames.side gives {expected} latent cells: set frames.side to "
                f"{value} times the autoencoder's pixels a cell, or take weights of that size"
            )
        if isinstance(expected, tuple):
            value = (value,) * len(expected) if isinstance(value, int) else tuple(value or ())
        if key == "transformer_layers_per_block":  # only levels with attention use theirs
            levels = zip(value, expected, config["down_block_types"], strict=True)
            is_same = all(depth == layers for depth, layers, kind in levels if "CrossAttn" in kind)
        else:
            is_same = value == expected
        if not is_same:
            raise ValueError(
                f"{source!r} has {key} {value}, the params say {expected}: make the denoiser section agree"
            )


def has_inpaint_channels(config: Mapping[str, Any]) -> bool:
    """Return whether the UNet of that config reads hole and masked latents, too."""
    return bool(config["in_channels"] == count_inpaint_channels(config["out_channels"]))


def count_inpaint_channels(latent_channels: int) -> int:
    """Count the inpainting UNet's input channels: noisy latents, hole, masked latents."""
    return 2 * latent_channels + 1


def add_inpaint_channels(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give a text-to-image UNet the inputs of inpainting, in place; returns it.

    The new input weights are zero, so at step 0 the output does not depend on hole and masked latents and equals
    the base's. Raises ValueError if the UNet has other inputs than latents.
    """
    latent_channels: int = unet.config["out_channels"]
    if unet.config["in_channels"] != latent_channels:
        raise ValueError(
            f"the denoiser already has {unet.config['in_channels']} input channels for {latent_channels} latent "
            "channels: start inpainting from a text-to-image denoiser"
        )
    old = unet.conv_in
    new = nn.Conv2d(
        count_inpaint_channels(latent_channels),
        old.out_channels,
        old.kernel_size,
        padding=old.padding,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latent_channels].copy_(old.weight)
    new.bias = old.bias
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)
    return unet


def build_inpaint_input(noisy: torch.Tensor, hole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Concatenate noisy (B, C, h, w), hole (B or 1, 1, h, w) and masked latents (B or 1, C, h, w) for the UNet."""
    size = noisy.shape[0]
    return torch.cat([noisy, hole.expand(size, -1, -1, -1), masked.expand(size, -1, -1, -1)], dim=1)
