"""LoRA on every linear and convolution layer of the denoiser (peft), in the format that diffusers loads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.nn import functional as F

from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import get_family
from canvas.denoiser.passes.layers import compute_folded_weight
from canvas.train.checkpoint import sort_metadata

LORA_FILE = "pytorch_lora_weights.safetensors"
DEFAULT_LORA = "default"

STYLE_LORA = "style"
"""The LoRA that image prompts were trained with: it is on only while there is one."""


def list_lora_names(denoiser: Denoiser) -> list[str]:
    """Return the names of the LoRAs that the denoiser has."""
    return list(getattr(denoiser, "peft_config", {}))


def add_lora(denoiser: Denoiser, *, rank: int, alpha: int, name: str = DEFAULT_LORA) -> Denoiser:
    """Add a LoRA of `rank` to every linear and convolution layer, in place; the base is frozen. Returns the denoiser.

    The second factor starts at zero, so the output does not change before training (Hu et al. 2021).
    """
    denoiser.requires_grad_(False)
    layers = [layer_name for layer_name, layer in denoiser.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers), name)
    for layer in denoiser.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False  # it has the base's; autocast would convert all inputs back
    return denoiser


def save_lora(denoiser: Denoiser, directory: Path, name: str = DEFAULT_LORA) -> None:
    """Write one of the denoiser's LoRAs as `pytorch_lora_weights.safetensors`, its peft config in the metadata.

    The same LoRA gives the same bytes.
    """
    config = denoiser.peft_config[name].to_dict()
    # peft holds the layers' names as a set, whose order changes from process to process
    metadata = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    weights = get_peft_model_state_dict(denoiser, adapter_name=name)
    get_family(denoiser).save_lora(directory, weights, metadata)
    sort_metadata(directory / LORA_FILE)


def load_lora(denoiser: Denoiser, directory: Path, name: str = DEFAULT_LORA) -> Denoiser:
    """Add the LoRA that `save_lora` wrote, in place; returns the denoiser. Raises ValueError if there is none."""
    if not (directory / LORA_FILE).is_file():
        raise ValueError(f"{directory} holds no {LORA_FILE}: name a directory that a LoRA stage wrote")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # the denoiser may have several LoRAs
        get_family(denoiser).load_lora(denoiser, directory, LORA_FILE, name)
    return denoiser


def merge_lora(denoiser: Denoiser) -> Denoiser:
    """Fold the LoRAs into the weights, in place, and drop the adapter layers; returns the denoiser.

    That of image prompts stays a LoRA, off.
    A denoiser with a LoRA on every layer runs two more small layers for each of its own; merged it runs none.
    """
    names = list_lora_names(denoiser)
    others = [name for name in names if name != STYLE_LORA]
    style_config = denoiser.peft_config[STYLE_LORA] if STYLE_LORA in names else None
    style_weights = get_peft_model_state_dict(denoiser, adapter_name=STYLE_LORA) if STYLE_LORA in names else {}
    if others:
        denoiser.fuse_lora(adapter_names=others)
    if names:
        denoiser.unload_lora()
    if style_config is not None:
        denoiser.add_adapter(style_config, STYLE_LORA)
        set_peft_model_state_dict(denoiser, style_weights, STYLE_LORA)
        set_style_lora(denoiser, None)
    return denoiser


def set_style_lora(denoiser: Denoiser, strengths: Mapping[str, float] | None) -> None:
    """Let the LoRA of image prompts, if there is one, count as the image does; None: off. All others count.

    `strengths`: of the image in each of its attention layers, by name. A layer of an attention block counts as the
    block's strongest, one outside of them as the weakest of all: where only some blocks see the image, the LoRA
    changes no others.
    """
    names, family = list_lora_names(denoiser), get_family(denoiser)
    blocks: dict[str, float] = {}
    for layer, strength in (strengths or {}).items():
        block = family.get_block(layer)
        blocks[block] = max(blocks.get(block, 0.0), min(1.0, strength))
    active = [name for name in names if name != STYLE_LORA or any(blocks.values())]
    if not active:
        if names:
            denoiser.disable_lora()
        return
    denoiser.enable_lora()
    denoiser.set_adapters(active)
    if STYLE_LORA in active:
        for name, layer in denoiser.named_modules():
            if isinstance(layer, LoraLayer):
                matching = (strength for block, strength in blocks.items() if name.startswith(f"{block}."))
                layer.set_scale(STYLE_LORA, next(matching, min(blocks.values())))


@contextmanager
def fuse_loras(denoiser: Denoiser, names: Sequence[str]) -> Iterator[None]:
    """Within the context the LoRAs of these names, and no others, are part of the weights: as fast as merged, and
    undone afterwards up to rounding."""
    if names:
        denoiser.fuse_lora(adapter_names=list(names))
    elif list_lora_names(denoiser):
        denoiser.disable_lora()
    try:
        yield
    finally:
        if names:
            denoiser.unfuse_lora()
        elif list_lora_names(denoiser):
            denoiser.enable_lora()


@contextmanager
def fold_lora_weights(denoiser: Denoiser) -> Iterator[None]:
    """Within the context each layer with a LoRA multiplies once, by W + BA formed anew in every pass, and the LoRA
    still learns; afterwards by W, A and B one after the other, as peft has it. Both are the same up to rounding.

    It costs the gradient of all of W, and saves passing images through A and B: faster where the rank is not far
    below the width, slower for large denoisers.
    """
    layers = [layer for layer in denoiser.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        layer.forward = MethodType(_forward_folded, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward_folded(layer: LoraLayer, inputs: torch.Tensor) -> torch.Tensor:
    base, weight = layer.get_base_layer(), compute_folded_weight(layer)
    if isinstance(base, nn.Conv2d):
        return base._conv_forward(inputs, weight, base.bias)
    return F.linear(inputs, weight, base.bias)
