"""The denoiser: SDXL's UNet at any size, and its inpainting form.

The inpainting denoiser reads [noisy latents, hole, masked latents] along the channels, in the order of diffusers'
inpainting pipelines; *hole* is 1 where the denoiser paints, so it is 1 - mask at latent size (mask: 1 = product, keep).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from canvas.denoiser.spec import DenoiserSpec

SIZE_IDS = 6
"""Numbers of SDXL's added conditioning: original (h, w), crop (top, left), target (h, w)."""


def build_unet_config(
    spec: DenoiserSpec, *, latent_channels: int, sample_size: int, text_width: int, pooled_width: int
) -> dict[str, Any]:
    """The diffusers config of a text-to-image UNet with SDXL's conditioning."""
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


def build_denoiser(
    spec: DenoiserSpec, *, latent_channels: int, sample_size: int, text_width: int, pooled_width: int
) -> UNet2DConditionModel:
    """A text-to-image denoiser, random or from `spec.init_from`.

    `sample_size`: side of the latents in training. `text_width`: channels of the concatenated hidden states;
    `pooled_width`: of the pooled text. Raises ValueError if the public weights are of another architecture: the
    spec's values would be ignored.
    """
    config = build_unet_config(
        spec,
        latent_channels=latent_channels,
        sample_size=sample_size,
        text_width=text_width,
        pooled_width=pooled_width,
    )
    if spec.init_from is None:
        return UNet2DConditionModel(**config)
    unet = load_denoiser(spec.init_from)
    _check_architecture(unet, config, spec.init_from)
    return unet


def load_denoiser(source: str | Path) -> UNet2DConditionModel:
    """The UNet in a directory (or hub repository) of diffusers: the model itself, or a pipeline's `unet` folder."""
    local = Path(source)
    if local.is_dir():
        folder = local / "unet" if (local / "unet").is_dir() else local
        return UNet2DConditionModel.from_pretrained(folder)
    if local.is_absolute() or str(source).startswith("."):
        raise ValueError(f"denoiser.init_from {str(source)!r} is not a directory: name a diffusers model or a hub id")
    return UNet2DConditionModel.from_pretrained(str(source), subfolder="unet")


def _check_architecture(unet: UNet2DConditionModel, config: dict[str, Any], source: str) -> None:
    for key, wanted in config.items():
        found = unet.config[key]
        if key == "sample_size" or (key == "in_channels" and found == count_inpaint_channels(config["out_channels"])):
            continue
        if not isinstance(wanted, tuple):
            same = found == wanted
        elif key == "transformer_layers_per_block":  # only levels with attention use theirs
            there = ["CrossAttn" in kind for kind in config["down_block_types"]]
            found = (found,) * len(wanted) if isinstance(found, int) else tuple(found)
            same = all(a == b for a, b, used in zip(found, wanted, there, strict=True) if used)
        else:
            same = ((found,) * len(wanted) if isinstance(found, int) else tuple(found)) == wanted
        if not same:
            raise ValueError(f"{source!r} has {key} {found}, the params say {wanted}: make the denoiser section agree")


def count_inpaint_channels(latent_channels: int) -> int:
    """Input channels of the inpainting denoiser: noisy latents, hole, masked latents."""
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
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(
        count_inpaint_channels(latent_channels),
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latent_channels].copy_(old.weight)
        assert new.bias is not None
        assert old.bias is not None
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)
    return unet


def build_inpaint_input(noisy: torch.Tensor, hole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Concatenate noisy (B, C, h, w), hole (B or 1, 1, h, w) and masked latents (B or 1, C, h, w) for the UNet."""
    size = noisy.shape[0]
    return torch.cat([noisy, hole.expand(size, -1, -1, -1), masked.expand(size, -1, -1, -1)], dim=1)
