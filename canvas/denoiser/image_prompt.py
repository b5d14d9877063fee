"""Image prompts: the UNet attends to image tokens beside its text (IP-Adapter, Ye et al. 2023, section 3.2).

Everything stands in diffusers' own terms: its attention processors, its projection, its file, so stock pipelines load
it with `load_ip_adapter(directory, subfolder="", weight_name=WEIGHTS_FILE, image_encoder_folder=None)`. Shapes: B
images to generate, S token sets, E the image embedding's width, D the text states'. A zero embedding is no image.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import load_file, save_file
from torch import nn

from canvas.denoiser.lora import set_style_lora

WEIGHTS_FILE, CONFIG_FILE = "ip_adapter.safetensors", "config.json"
IMAGE_TOKENS = 4
"""Tokens of an image; diffusers reads no other number from a file whose projection is one linear layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """What the adapter's embedding is made of, and which layers carry style."""

    source: str  # "uve", "clip" or "uve+clip"
    style_layers: tuple[str, ...]  # beginnings of the names of cross-attention layers

    @classmethod
    def load(cls, directory: Path) -> AdapterConfig:
        """Load what `save_image_prompt` wrote. Raises ValueError if there is none."""
        if not (directory / CONFIG_FILE).is_file():
            raise ValueError(f"{directory} holds no {CONFIG_FILE}: name a directory that train_ip_adapter wrote")
        values = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        return cls(source=values["source"], style_layers=tuple(values["style_layers"]))


def has_image_prompt(unet: nn.Module) -> bool:
    """Return whether the UNet reads image embeddings."""
    return isinstance(getattr(unet, "encoder_hid_proj", None), MultiIPAdapterImageProjection)


def get_embedding_width(unet: UNet2DConditionModel) -> int:
    """Return the width E of the embeddings that the UNet reads."""
    return int(get_projection(unet).image_embeds.in_features)


def add_image_prompt(unet: UNet2DConditionModel, width: int) -> UNet2DConditionModel:
    """Give the UNet image tokens from embeddings of `width`, in place; returns it. The rest of it keeps its
    `requires_grad`.

    Keys start as the text's (Ye et al.'s own start), values at zero, so the output does not change before training.
    """
    _attach_adapter(unet, width)
    with torch.no_grad():
        for name, processor in get_image_processors(unet).items():
            processor.to_k_ip[0].weight.copy_(get_text_layer(unet, f"{name}.to_k").weight)
            processor.to_v_ip[0].weight.zero_()
    return unet


def get_text_layer(unet: UNet2DConditionModel, name: str) -> nn.Linear:
    """Return a linear layer, without the LoRA round it."""
    layer = unet.get_submodule(name)
    return getattr(layer, "base_layer", layer)


def get_projection(unet: UNet2DConditionModel) -> ImageProjection:
    """Return the layer that makes image tokens of an embedding."""
    return unet.encoder_hid_proj.image_projection_layers[0]


def get_image_processors(unet: UNet2DConditionModel) -> dict[str, IPAdapterAttnProcessor2_0]:
    """Return what attends to image tokens, by the name of the cross-attention layer, as
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2"."""
    return {
        name.removesuffix(".processor"): processor
        for name, processor in unet.attn_processors.items()
        if isinstance(processor, IPAdapterAttnProcessor2_0)
    }


def get_image_prompt_state(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by their names in the file; the layers' numbers are odd, as their place among
    all attention layers."""
    projection = get_projection(unet)
    state = {
        "image_proj.proj.weight": projection.image_embeds.weight,
        "image_proj.proj.bias": projection.image_embeds.bias,
        "image_proj.norm.weight": projection.norm.weight,
        "image_proj.norm.bias": projection.norm.bias,
    }
    for place, processor in enumerate(get_image_processors(unet).values()):
        for name in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{2 * place + 1}.{name}.weight"] = getattr(processor, name)[0].weight
    return state


def save_image_prompt(unet: UNet2DConditionModel, config: AdapterConfig, directory: Path) -> None:
    """Write the adapter's weights and config. Raises ValueError for style layers that the UNet has not."""
    resolve_layer_scales(unet, dict.fromkeys(config.style_layers, 1.0))
    directory.mkdir(parents=True, exist_ok=True)
    state = get_image_prompt_state(unet)
    save_file({name: weight.detach().cpu().contiguous() for name, weight in state.items()}, directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def load_image_prompt(unet: UNet2DConditionModel, directory: Path) -> UNet2DConditionModel:
    """Give the UNet, in place, the adapter that `save_image_prompt` wrote; returns it. ValueError if none fits."""
    if not (directory / WEIGHTS_FILE).is_file():
        raise ValueError(f"{directory} holds no {WEIGHTS_FILE}: name a directory that train_ip_adapter wrote")
    weights = load_file(directory / WEIGHTS_FILE)
    _attach_adapter(unet, weights["image_proj.proj.weight"].shape[1])
    state = get_image_prompt_state(unet)
    for name in sorted(state.keys() | weights.keys()):
        needed, stored = (list(group[name].shape) if name in group else "none" for group in (state, weights))
        if needed != stored:
            remove_image_prompt(unet)
            raise ValueError(
                f"the adapter has {name} {stored}, this denoiser needs {needed}: "
                "an adapter fits the denoiser that it was trained with"
            )
    with torch.no_grad():
        for name, parameter in state.items():
            parameter.copy_(weights[name])
    return unet


def remove_image_prompt(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Take the adapter off, in place; returns the UNet."""
    plain = {
        name: AttnProcessor2_0() if isinstance(processor, IPAdapterAttnProcessor2_0) else processor
        for name, processor in unet.attn_processors.items()
    }
    unet.set_attn_processor(plain)
    unet.encoder_hid_proj = None
    unet.register_to_config(encoder_hid_dim_type=None)
    return unet


def resolve_layer_scales(unet: UNet2DConditionModel, scales: float | Mapping[str, float]) -> dict[str, float]:
    """Return how much image tokens count in each cross-attention layer: the same in all, or by the beginning of the
    layer's name, the longest that fits, 0 in the others. Raises ValueError for a name that no layer begins with."""
    layers = list(get_image_processors(unet))
    if not isinstance(scales, Mapping):
        return dict.fromkeys(layers, float(scales))
    if unknown := sorted(name for name in scales if not any(_is_within(layer, name) for layer in layers)):
        blocks = sorted({layer.partition(".transformer_blocks")[0] for layer in layers})
        raise ValueError(f"no cross-attention layer is called {', '.join(unknown)}: there are {', '.join(blocks)}")
    longest = {
        layer: max((name for name in scales if _is_within(layer, name)), key=len, default=None) for layer in layers
    }
    return {layer: 0.0 if name is None else float(scales[name]) for layer, name in longest.items()}


def set_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """Set how much image tokens count from now on, in all layers."""
    for processor in get_image_processors(unet).values():
        processor.scale = [scale]


@contextmanager
def use_image_prompts(unet: UNet2DConditionModel, sets: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Within the context the UNet reads a list of S image embeddings (B, 1, E), each attended to on its own; set s
    counts in a layer as `sets[s][layer]` (`resolve_layer_scales`) says."""
    processors, projection = get_image_processors(unet), unet.encoder_hid_proj
    before = {name: (own.scale, own.to_k_ip, own.to_v_ip) for name, own in processors.items()}
    try:
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([get_projection(unet)] * len(sets))
        for name, processor in processors.items():
            processor.scale = [scales[name] for scales in sets]
            processor.to_k_ip = _repeat_layer(processor.to_k_ip[0], len(sets))
            processor.to_v_ip = _repeat_layer(processor.to_v_ip[0], len(sets))
        yield
    finally:
        unet.encoder_hid_proj = projection
        for name, processor in processors.items():
            processor.scale, processor.to_k_ip, processor.to_v_ip = before[name]


@contextmanager
def apply_style(unet: UNet2DConditionModel, sets: Sequence[Mapping[str, float]] | None) -> Iterator[None]:
    """Within the context image embeddings count as `use_image_prompts` says, and the LoRA that was trained with them
    by their sum; None: as they are."""
    if sets is None:
        yield
        return
    assert has_image_prompt(unet), "a style for a denoiser without image prompts"
    set_style_lora(unet, sum_scales(sets))
    try:
        with use_image_prompts(unet, sets):
            yield
    finally:
        set_style_lora(unet, None)


def sum_scales(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how much all sets together count, by layer."""
    return {name: sum(scales[name] for scales in sets) for name in sets[0]}


def _attach_adapter(unet: UNet2DConditionModel, width: int) -> None:
    dimensions = int(unet.config["cross_attention_dim"])
    modules, place = dict(unet.named_modules()), {"device": unet.device, "dtype": unet.dtype}
    processors = {}
    for name, processor in unet.attn_processors.items():
        layer = name.removesuffix(".processor")
        if layer.endswith("attn2"):
            processor = IPAdapterAttnProcessor2_0(modules[layer].inner_dim, dimensions, num_tokens=(IMAGE_TOKENS,))
            processor.to(**place)
        processors[name] = processor
    unet.set_attn_processor(processors)
    projection = ImageProjection(width, dimensions, IMAGE_TOKENS)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection]).to(**place)
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def _repeat_layer(layer: nn.Module, times: int) -> nn.ModuleList:
    """Repeat the layer, as modules of their own, whose outputs are cached one by one, with the same weights."""
    return nn.ModuleList([layer, *(copy.copy(layer) for _ in range(times - 1))])


def _is_within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
