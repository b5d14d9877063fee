"""SDXL's UNet as a family: its members in the order of `canvas.denoiser.family.DenoiserFamily`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import nn

from canvas.denoiser.family import SIZE_IDS, Change, DenoiserCondition, InputSizes, check_layer
from canvas.denoiser.unet import model as network
from canvas.denoiser.unet.spec import UNetSpec
from canvas.masks.composite import compute_hole


class UNetFamily:
    """A UNet reads image tokens in each cross-attention layer, after the text's."""

    kind = "unet"
    model_class = UNet2DConditionModel
    component = "unet"
    patch = 1
    projection_names = re.compile(r"(attn2\.to_[kv]|attn2\.processor\.to_[kv]_ip\.\d+|encoder_hid_proj)$")
    plain_processor = AttnProcessor2_0
    image_processor = IPAdapterAttnProcessor2_0
    keeps_change = False
    starts_values_from_text = True

    build_config = staticmethod(network.build_unet_config)
    check_architecture = staticmethod(network.check_architecture)
    has_inpaint_channels = staticmethod(network.has_inpaint_channels)
    compute_hole = staticmethod(compute_hole)
    build_inpaint_input = staticmethod(network.build_inpaint_input)
    predict = staticmethod(network.run_unet)

    def initialize_weights(self, model: UNet2DConditionModel, spec: UNetSpec) -> None:
        """Leave the weights as diffusers draws them."""

    def get_input_sizes(self, config: Mapping[str, Any]) -> InputSizes:
        """Return the widths of what a UNet of that config reads."""
        pooled = config["projection_class_embeddings_input_dim"] - SIZE_IDS * config["addition_time_embed_dim"]
        return InputSizes(channels=config["in_channels"], text=config["cross_attention_dim"], pooled=pooled)

    def reads_guidance(self, config: Mapping[str, Any]) -> bool:
        """Return False: SDXL is guided by two passes."""
        return False

    def count_hole_channels(self, cell: int) -> int:
        """Return 1: a cell is hole or not."""
        return 1

    def count_inpaint_channels(self, latent_channels: int, cell: int) -> int:
        """Return the channels of noisy latents, hole and masked latents."""
        return network.count_inpaint_channels(latent_channels)

    def add_inpaint_channels(self, model: UNet2DConditionModel, cell: int) -> UNet2DConditionModel:
        """Give a text-to-image UNet the inputs of inpainting."""
        return network.add_inpaint_channels(model)

    def choose_preparation(self, model: UNet2DConditionModel) -> None:
        """Return None: its convolutions leave little to share."""

    def predict_from_change(
        self,
        model: nn.Module,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        condition: DenoiserCondition,
        change: Change,
    ) -> tuple[torch.Tensor, Change]:
        """Raise: its blocks change the size of what they read."""
        raise AssertionError("keeps_change is False")

    def get_hidden_width(self, model: UNet2DConditionModel, layer: str) -> int:
        """Return the channels of the block in the middle, or of one that goes down."""
        widths = model.config["block_out_channels"]
        layers = {f"down_blocks.{number}": width for number, width in enumerate(widths)} | {"mid_block": widths[-1]}
        check_layer(layer, list(layers))
        return int(layers[layer])

    def get_hidden_states(self, output: torch.Tensor | tuple[torch.Tensor, Any]) -> torch.Tensor:
        """Return the map; blocks that go down also return what those that go up read."""
        return output if isinstance(output, torch.Tensor) else output[0]

    def has_image_layer(self, layer: str) -> bool:
        """Return whether it is a layer of cross-attention."""
        return layer.endswith("attn2")

    def build_image_processor(self, model: UNet2DConditionModel, layer: str) -> nn.Module:
        """Return a new processor of text and image tokens for a layer."""
        width = model.get_submodule(layer).inner_dim
        processor: nn.Module = IPAdapterAttnProcessor2_0(
            width, int(model.config["cross_attention_dim"]), num_tokens=(4,)
        )
        return processor

    def attach_projection(self, model: UNet2DConditionModel, projection: nn.Module | None) -> None:
        """Let the UNet read image embeddings through `projection`; None: no more."""
        model.encoder_hid_proj = projection
        model.register_to_config(encoder_hid_dim_type=None if projection is None else "ip_image_proj")

    def get_image_number(self, place: int) -> int:
        """Return the layer's number among all attention layers, where self-attention comes first."""
        return 2 * place + 1

    def get_text_projection(
        self, model: UNet2DConditionModel, layer: str, kind: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the weight of the layer's own keys or values, which have no bias, without the LoRA round it."""
        projection = model.get_submodule(f"{layer}.to_{kind}")
        return getattr(projection, "base_layer", projection).weight, None

    def get_block(self, layer: str) -> str:
        """Return the attention block, as "up_blocks.0.attentions.1"."""
        return layer.partition(".transformer_blocks")[0]

    def save_lora(self, directory: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Write a LoRA as `StableDiffusionXLInpaintPipeline` loads it."""
        StableDiffusionXLLoraLoaderMixin.save_lora_weights(
            directory, unet_lora_layers=weights, unet_lora_adapter_metadata=metadata
        )

    def load_lora(self, model: UNet2DConditionModel, directory: Path, file: str, name: str) -> None:
        """Add the LoRA of that file."""
        weights, alphas, metadata = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            str(directory), weight_name=file, return_lora_metadata=True, use_safetensors=True
        )
        StableDiffusionXLLoraLoaderMixin.load_lora_into_unet(
            weights, alphas, model, adapter_name=name, metadata=metadata
        )


UNET = UNetFamily()
