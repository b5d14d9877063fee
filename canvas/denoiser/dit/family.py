"""Flux's transformer as a family: its members in the order of `canvas.denoiser.family.DenoiserFamily`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxIPAdapterAttnProcessor
from torch import nn

from canvas.denoiser.dit import model as network
from canvas.denoiser.dit.spec import PATCH
from canvas.denoiser.dit.steps import PreparedDit, can_prepare
from canvas.denoiser.family import InputSizes, Prepare, check_layer
from canvas.masks.composite import compute_pixel_hole


class DitFamily:
    """A transformer reads image tokens in each double block, beside the text's."""

    kind = "dit"
    model_class = FluxTransformer2DModel
    component = "transformer"
    patch = PATCH
    projection_names = re.compile(
        r"(context_embedder|time_text_embed\.text_embedder|attn\.processor\.to_[kv]_ip\.\d+|encoder_hid_proj)$"
    )
    plain_processor = FluxAttnProcessor
    image_processor = FluxIPAdapterAttnProcessor
    keeps_change = True
    starts_values_from_text = False  # they are added behind the block's gate, which the text's never pass

    build_config = staticmethod(network.build_dit_config)
    initialize_weights = staticmethod(network.initialize_weights)
    check_architecture = staticmethod(network.check_architecture)
    reads_guidance = staticmethod(network.reads_guidance)
    has_inpaint_channels = staticmethod(network.has_inpaint_channels)
    count_inpaint_channels = staticmethod(network.count_inpaint_channels)
    add_inpaint_channels = staticmethod(network.add_inpaint_channels)
    count_hole_channels = staticmethod(network.count_hole_channels)
    compute_hole = staticmethod(compute_pixel_hole)
    build_inpaint_input = staticmethod(network.build_inpaint_input)
    predict = staticmethod(network.run_dit)
    predict_from_change = staticmethod(network.run_dit_from_change)

    def get_input_sizes(self, config: Mapping[str, Any]) -> InputSizes:
        """Return the widths of what a transformer of that config reads."""
        return InputSizes(
            channels=config["in_channels"] // network.CELLS,
            text=config["joint_attention_dim"],
            pooled=config["pooled_projection_dim"],
        )

    def choose_preparation(self, model: FluxTransformer2DModel) -> Prepare | None:
        """Return `PreparedDit`, for a small model without hooks."""
        return PreparedDit if can_prepare(model) else None

    def get_hidden_width(self, model: FluxTransformer2DModel, layer: str) -> int:
        """Return the width of all tokens, of a double or single block."""
        kinds = ("transformer_blocks", "single_transformer_blocks")
        check_layer(layer, [f"{kind}.{number}" for kind in kinds for number in range(len(getattr(model, kind)))])
        return int(model.inner_dim)

    def get_hidden_states(self, output: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the image's tokens, which come after the text's."""
        return output[1].mT

    def has_image_layer(self, layer: str) -> bool:
        """Return whether it is the attention of a double block."""
        return layer.startswith("transformer_blocks.")

    def build_image_processor(self, model: FluxTransformer2DModel, layer: str) -> nn.Module:
        """Return a new processor of text and image tokens for a layer."""
        processor: nn.Module = FluxIPAdapterAttnProcessor(
            model.inner_dim, int(model.config["joint_attention_dim"]), num_tokens=(4,)
        )
        return processor

    def attach_projection(self, model: FluxTransformer2DModel, projection: nn.Module | None) -> None:
        """Let the transformer read image embeddings through `projection`; None: no more."""
        model.encoder_hid_proj = projection

    def get_image_number(self, place: int) -> int:
        """Return the number of the double block."""
        return place

    def get_text_projection(
        self, model: FluxTransformer2DModel, layer: str, kind: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the way of text states through the embedding of all text into the layer's keys or values, without the
        norm between them and the LoRA round them."""
        embedder, projection = (
            getattr(part, "base_layer", part)
            for part in (model.context_embedder, model.get_submodule(f"{layer}.add_{kind}_proj"))
        )
        return projection.weight @ embedder.weight, projection.weight @ embedder.bias + projection.bias

    def get_block(self, layer: str) -> str:
        """Return the double block, as "transformer_blocks.1"."""
        return layer.removesuffix(".attn")

    def save_lora(self, directory: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a LoRA as Flux's stock pipelines load it."""
        FluxLoraLoaderMixin.save_lora_weights(
            directory, transformer_lora_layers=weights, transformer_lora_adapter_metadata=metadata
        )

    def load_lora(self, model: FluxTransformer2DModel, directory: Path, file: str, name: str) -> None:
        """Add the LoRA of that file."""
        weights, alphas, metadata = FluxLoraLoaderMixin.lora_state_dict(
            str(directory), weight_name=file, return_alphas=True, return_lora_metadata=True, use_safetensors=True
        )
        FluxLoraLoaderMixin.load_lora_into_transformer(weights, alphas, model, adapter_name=name, metadata=metadata)


DIT = DitFamily()
