"""What a linear layer with LoRAs multiplies by, as one matrix."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn


def has_folded_weight(layer: nn.Module) -> bool:
    """Return whether the layer is torch's own linear one, neither quantised nor sharded, and its LoRAs, if it has some,
    are of the kind that adds BA to its weight."""
    base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    if type(base) is not nn.Linear or type(base.weight.data) is not torch.Tensor:
        return False
    if not isinstance(layer, LoraLayer):
        return True
    changes_itself = layer.merged and layer.disable_adapters  # its next pass would take the merged ones out
    return not layer.lora_variant and not any(layer.lora_bias.values()) and not changes_itself


def compute_folded_weight(layer: nn.Module) -> torch.Tensor:
    """Return W + BA of a layer with the LoRAs that are on (Hu et al. 2021, section 4.1); W, and no copy of it, where
    none is."""
    if not isinstance(layer, LoraLayer):
        weight: torch.Tensor = layer.weight  # type: ignore[assignment]
        return weight
    base: torch.Tensor = layer.get_base_layer().weight
    if layer.disable_adapters or layer.merged:
        return base
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return sum((layer.get_delta_weight(name).to(base.dtype) for name in names), start=base)


def get_bias(layer: nn.Module) -> torch.Tensor:
    """Return the bias of a linear layer, which LoRAs leave as it is."""
    base: Any = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    bias: torch.Tensor = base.bias
    return bias
