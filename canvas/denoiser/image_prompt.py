"""Image prompts: the denoiser attends to image tokens beside its text (IP-Adapter, Ye et al. 2023, section 3.2).

Everything stands in diffusers' own terms: its attention processors, its projection, its file, so stock pipelines load
it with `load_ip_adapter(directory, subfolder="", weight_name=WEIGHTS_FILE, image_encoder_folder=None)`. Shapes: B
pictures to paint, S token sets, E the image embedding's width, D the text states'. A zero embedding is no picture.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import load_file, save_file
from torch import nn

from canvas.denoiser.lora import set_style_lora

WEIGHTS_FILE, CONFIG_FILE = "ip_adapter.safetensors", "config.json"
IMAGE_TOKENS = 4
"""Of a picture; diffusers reads no other number from a file whose projection is one linear layer."""

MIN_STD_SHARE = 0.1
"""Directions of the embedding that vary less than this share of the mean count as if they varied so much."""

RIDGE_PENALTY = 0.1
"""Of the regression of captions on embeddings, where these have variance 1."""

PROJECTION_KEYS = {"proj.weight": "image_embeds.weight", "proj.bias": "image_embeds.bias"} | {
    name: name for name in ("norm.weight", "norm.bias")
}
"""Names in the file, after `image_proj.` -> names in diffusers' module."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """What the adapter's embedding is made of, and which layers carry style."""

    source: str  # "uve", "clip" or "uve+clip"
    style_layers: tuple[str, ...]  # beginnings of the names of cross-attention layers

    def save(self, directory: Path) -> None:
        """Write it beside the weights."""
        (directory / CONFIG_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> AdapterConfig:
        """What `save` wrote. Raises ValueError if there is none."""
        if not (directory / CONFIG_FILE).is_file():
            raise ValueError(f"{directory} holds no {CONFIG_FILE}: name a directory that train_ip_adapter wrote")
        found = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        return cls(source=found["source"], style_layers=tuple(found["style_layers"]))


def has_image_prompt(unet: nn.Module) -> bool:
    """Whether the UNet reads image embeddings."""
    return isinstance(getattr(unet, "encoder_hid_proj", None), MultiIPAdapterImageProjection)


def get_embedding_width(unet: UNet2DConditionModel) -> int:
    """E, of the embeddings that the UNet reads."""
    return _get_projection(unet).image_embeds.in_features


def add_image_prompt(
    unet: UNet2DConditionModel,
    width: int,
    known: torch.Tensor | None = None,
    captions: torch.Tensor | None = None,
) -> UNet2DConditionModel:
    """Give the UNet image tokens from embeddings of `width`, in place; returns it. The rest of it keeps its
    `requires_grad`.

    Keys start as the text's (Ye et al.'s own start), values at zero, so the output does not change before training.
    `known` (N, E), embeddings to be trained on: the projection starts as if they had zero mean and unit variance. With
    `captions` (N, TOKENS, D), theirs (`caption_tokens`), a picture starts as its caption instead, as far as a linear
    map of its embedding tells it: values start as the text's, too.
    """
    _attach_adapter(unet, width)
    projection = _get_projection(unet)
    if captions is None:
        weight, bias = _build_random_projection(width, IMAGE_TOKENS * int(unet.config["cross_attention_dim"]), known)
    else:
        assert known is not None
        weight, bias = _fit_projection(known, captions.flatten(1))
    with torch.no_grad():
        projection.image_embeds.weight.copy_(weight)
        projection.image_embeds.bias.copy_(bias)
        if captions is not None:  # what normalising takes from a token
            projection.norm.weight.fill_(float(captions.std(dim=-1, correction=0).mean()))
            projection.norm.bias.fill_(float(captions.mean()))
        modules = dict(unet.named_modules())
        for name, processor in get_image_processors(unet).items():
            key, value = (_unwrap_lora(modules[f"{name}.{part}"]) for part in ("to_k", "to_v"))
            processor.to_k_ip[0].weight.copy_(key.weight)
            processor.to_v_ip[0].weight.copy_(torch.zeros_like(value.weight) if captions is None else value.weight)
    return unet


def compute_caption_tokens(states: torch.Tensor) -> torch.Tensor:
    """Text states (B, L, D) as (B, TOKENS, D): means of as many parts of the text, without the sign that starts it."""
    return torch.stack([part.float().mean(dim=1) for part in states[:, 1:].tensor_split(IMAGE_TOKENS, dim=1)], dim=1)


def _build_random_projection(width: int, size: int, known: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a random map to `size` numbers of zero mean and unit variance."""
    scale = torch.ones(width) if known is None else known.float().std(dim=0)
    scale = scale.clamp(min=MIN_STD_SHARE * float(scale.mean()))
    mean = torch.zeros(width) if known is None else known.float().mean(dim=0)
    weight = torch.randn(size, width) / width**0.5 / scale
    return weight, -(weight @ mean)


def _fit_projection(known: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the ridge regression of `wanted` (N, K) on `known` (N, E), each direction of unit variance."""
    scale = known.float().std(dim=0)
    scale = scale.clamp(min=MIN_STD_SHARE * float(scale.mean()))
    mean, middle = known.float().mean(dim=0), wanted.mean(dim=0)
    seen = (known.float() - mean) / scale
    square = seen.T @ seen / len(seen) + RIDGE_PENALTY * torch.eye(known.shape[1])
    weight = torch.linalg.solve(square, seen.T @ (wanted - middle) / len(seen)).T / scale
    return weight, middle - weight @ mean


def get_image_processors(unet: UNet2DConditionModel) -> dict[str, IPAdapterAttnProcessor2_0]:
    """Cross-attention layers by name, as "up_blocks.0.attentions.1.transformer_blocks.0.attn2", with what attends to
    image tokens there."""
    return {
        name.removesuffix(".processor"): processor
        for name, processor in unet.attn_processors.items()
        if isinstance(processor, IPAdapterAttnProcessor2_0)
    }


def get_image_prompt_state(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The adapter's weights by their names in the file; the layers' numbers are odd, as their place among all
    attention layers."""
    own = _get_projection(unet).state_dict()
    state = {f"image_proj.{name}": own[inner] for name, inner in PROJECTION_KEYS.items()}
    for place, processor in enumerate(get_image_processors(unet).values()):
        for name in ("to_k_ip", "to_v_ip"):
            state[f"ip_adapter.{2 * place + 1}.{name}.weight"] = getattr(processor, name)[0].weight
    return {name: weight.detach().cpu().contiguous() for name, weight in state.items()}


def save_image_prompt(unet: UNet2DConditionModel, config: AdapterConfig, directory: Path) -> None:
    """Write the adapter's weights and config. Raises ValueError for style layers that the UNet has not."""
    resolve_layer_scales(unet, dict.fromkeys(config.style_layers, 1.0))
    directory.mkdir(parents=True, exist_ok=True)
    save_file(get_image_prompt_state(unet), directory / WEIGHTS_FILE)
    config.save(directory)


def load_image_prompt(unet: UNet2DConditionModel, directory: Path) -> UNet2DConditionModel:
    """Give the UNet the adapter that `save_image_prompt` wrote, in place; returns it.

    Raises ValueError if there is none, or one for a UNet of other widths.
    """
    if not (directory / WEIGHTS_FILE).is_file():
        raise ValueError(f"{directory} holds no {WEIGHTS_FILE}: name a directory that train_ip_adapter wrote")
    return set_image_prompt(unet, load_file(directory / WEIGHTS_FILE))


def set_image_prompt(unet: UNet2DConditionModel, state: Mapping[str, torch.Tensor]) -> UNet2DConditionModel:
    """Give the UNet the adapter of these weights (`image_prompt_state`), in place; returns it."""
    _attach_adapter(unet, state["image_proj.proj.weight"].shape[1])
    wanted = {name: weight.shape for name, weight in get_image_prompt_state(unet).items()}
    found = {name: weight.shape for name, weight in state.items()}
    if wanted != found:
        name = next(name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name))
        remove_image_prompt(unet)
        raise ValueError(
            f"the adapter has {name} {_format_shape(found, name)}, this denoiser needs {_format_shape(wanted, name)}: "
            "an adapter fits the denoiser that it was trained with"
        )
    _get_projection(unet).load_state_dict(
        {inner: state[f"image_proj.{name}"] for name, inner in PROJECTION_KEYS.items()}
    )
    for place, processor in enumerate(get_image_processors(unet).values()):
        weights = {f"{name}.0.weight": state[f"ip_adapter.{2 * place + 1}.{name}.weight"] for name in _KEYS_AND_VALUES}
        processor.load_state_dict(weights)
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
    """How much the image tokens count in each cross-attention layer: the same in all, or by the beginning of the
    layer's name, the longest that fits, 0 in the others. Raises ValueError for a name that no layer begins with."""
    layers = list(get_image_processors(unet))
    if not isinstance(scales, Mapping):
        return dict.fromkeys(layers, float(scales))
    if unknown := sorted(name for name in scales if not any(_is_within(layer, name) for layer in layers)):
        blocks = sorted({layer.partition(".transformer_blocks")[0] for layer in layers})
        raise ValueError(f"no cross-attention layer is called {', '.join(unknown)}: there are {', '.join(blocks)}")
    found = {}
    for layer in layers:
        fitting = [name for name in scales if _is_within(layer, name)]
        found[layer] = float(scales[max(fitting, key=len)]) if fitting else 0.0
    return found


def set_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """How much image tokens count from now on, in all layers."""
    for processor in get_image_processors(unet).values():
        processor.scale = [scale]


@contextmanager
def use_image_prompts(unet: UNet2DConditionModel, sets: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Within the context the UNet reads a list of S image embeddings (B, 1, E), each attended to on its own; set s
    counts in a layer as `sets[s][layer]` (`layer_scales`) says."""
    processors, projection = get_image_processors(unet), unet.encoder_hid_proj
    before = {name: (one.scale, one.to_k_ip, one.to_v_ip) for name, one in processors.items()}
    try:
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([_get_projection(unet)] * len(sets))
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


_KEYS_AND_VALUES = ("to_k_ip", "to_v_ip")


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


def _get_projection(unet: UNet2DConditionModel) -> ImageProjection:
    found: ImageProjection = unet.encoder_hid_proj.image_projection_layers[0]
    return found


def _unwrap_lora(layer: Any) -> Any:
    """A linear layer without the LoRA round it."""
    return getattr(layer, "base_layer", layer)


def _repeat_layer(layer: nn.Module, times: int) -> nn.ModuleList:
    """The layer so many times: modules of their own, for each is remembered on its own, with the same weights."""
    return nn.ModuleList([layer, *(copy.copy(layer) for _ in range(times - 1))])


def _is_within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")


def _format_shape(shapes: Mapping[str, torch.Size], name: str) -> object:
    return list(shapes[name]) if name in shapes else "none"
