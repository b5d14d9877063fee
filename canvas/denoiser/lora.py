"""LoRA on every linear and convolution layer of the UNet (peft), in the format that diffusers loads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType

import torch
from diffusers import StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.nn import functional as F

LORA_FILE = "pytorch_lora_weights.safetensors"
DEFAULT_LORA = "default"

STYLE_LORA = "style"
"""The LoRA that image prompts were trained with: it is on only while there is one."""


def list_lora_names(unet: UNet2DConditionModel) -> list[str]:
    """Return the names of the LoRAs that the UNet has."""
    return list(getattr(unet, "peft_config", {}))


def add_lora(unet: UNet2DConditionModel, *, rank: int, alpha: int, name: str = DEFAULT_LORA) -> UNet2DConditionModel:
    """Add a LoRA of `rank` to every linear and convolution layer, in place; the base is frozen. Returns the UNet. The
    second factor starts at zero, so the output does not change before training (Hu et al. 2021)."""
    unet.requires_grad_(False)
    layers = [layer_name for layer_name, layer in unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers), name)
    for layer in unet.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False  # it has the base's; autocast would convert all inputs back
    return unet


def save_lora(unet: UNet2DConditionModel, directory: Path, name: str = DEFAULT_LORA) -> None:
    """Write one of the UNet's LoRAs as `pytorch_lora_weights.safetensors`, its peft config in the metadata."""
    StableDiffusionXLInpaintPipeline.save_lora_weights(
        directory,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name=name),
        unet_lora_adapter_metadata=unet.peft_config[name].to_dict(),
    )


def load_lora(unet: UNet2DConditionModel, directory: Path, name: str = DEFAULT_LORA) -> UNet2DConditionModel:
    """Add the LoRA that `save_lora` wrote, in place; returns the UNet. Raises ValueError if there is none."""
    if not (directory / LORA_FILE).is_file():
        raise ValueError(f"{directory} holds no {LORA_FILE}: name a directory that a LoRA stage wrote")
    weights, alphas, metadata = StableDiffusionXLInpaintPipeline.lora_state_dict(
        str(directory), weight_name=LORA_FILE, return_lora_metadata=True, use_safetensors=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # the UNet may have several LoRAs
        StableDiffusionXLInpaintPipeline.load_lora_into_unet(
            weights, alphas, unet, adapter_name=name, metadata=metadata
        )
    return unet


def merge_lora(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Fold the LoRAs into the weights, in place, and drop the adapter layers; returns the UNet. That of image prompts
    stays a LoRA, off.

    A denoiser with a LoRA on every layer runs two more small layers for each of its own; merged it runs none.
    """
    names = list_lora_names(unet)
    others = [name for name in names if name != STYLE_LORA]
    style_config = unet.peft_config[STYLE_LORA] if STYLE_LORA in names else None
    style_weights = get_peft_model_state_dict(unet, adapter_name=STYLE_LORA) if STYLE_LORA in names else {}
    if others:
        unet.fuse_lora(adapter_names=others)
    if names:
        unet.unload_lora()
    if style_config is not None:
        unet.add_adapter(style_config, STYLE_LORA)
        set_peft_model_state_dict(unet, style_weights, STYLE_LORA)
        set_style_lora(unet, None)
    return unet


def set_style_lora(unet: UNet2DConditionModel, strengths: Mapping[str, float] | None) -> None:
    """Let the LoRA of image prompts, if there is one, count as the image does; None: off. All others count.

    `strengths`: of the image in each cross-attention layer, by name. A layer of an attention block counts as the
    block's strongest, one outside of them as the weakest of all: where only some blocks see the image, the LoRA
    changes no others.
    """
    names = list_lora_names(unet)
    blocks: dict[str, float] = {}
    for layer, strength in (strengths or {}).items():
        block = layer.partition(".transformer_blocks")[0]
        blocks[block] = max(blocks.get(block, 0.0), min(1.0, strength))
    active = [name for name in names if name != STYLE_LORA or any(blocks.values())]
    if not active:
        if names:
            unet.disable_lora()
        return
    unet.enable_lora()
    unet.set_adapters(active)
    if STYLE_LORA in active:
        for name, layer in unet.named_modules():
            if isinstance(layer, LoraLayer):
                own = (strength for block, strength in blocks.items() if name.startswith(f"{block}."))
                layer.set_scale(STYLE_LORA, next(own, min(blocks.values())))


@contextmanager
def fuse_loras(unet: UNet2DConditionModel, names: Sequence[str]) -> Iterator[None]:
    """Within the context the LoRAs of these names, and no others, are part of the weights: as fast as merged, and
    undone afterwards up to rounding."""
    if names:
        unet.fuse_lora(adapter_names=list(names))
    elif list_lora_names(unet):
        unet.disable_lora()
    try:
        yield
    finally:
        if names:
            unet.unfuse_lora()
        elif list_lora_names(unet):
            unet.enable_lora()


@contextmanager
def fold_lora_weights(unet: UNet2DConditionModel) -> Iterator[None]:
    """Within the context each layer with a LoRA multiplies once, by W + BA formed anew in every pass, and the LoRA
    still learns; afterwards by W, A and B one after the other, as peft has it. Both are the same up to rounding.

    It costs the gradient of all of W, and saves passing images through A and B: faster where the rank is not far
    below the width, slower for large denoisers.
    """
    layers = [layer for layer in unet.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.forward = MethodType(_forward_folded, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward_folded(layer: LoraLayer, inputs: torch.Tensor) -> torch.Tensor:
    base = layer.get_base_layer()
    names = [name for name in layer.active_adapters if name in layer.lora_A and not layer.disable_adapters]
    weight = sum((layer.get_delta_weight(name) for name in names), start=base.weight)
    if isinstance(base, nn.Conv2d):
        return base._conv_forward(inputs, weight, base.bias)
    return F.linear(inputs, weight, base.bias)
