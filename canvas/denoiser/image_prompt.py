"""Image prompts: the denoiser attends to image tokens beside its text (IP-Adapter, Ye et al. 2023, section 3.2).

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
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import load_file, save_file
from torch import nn

from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import get_family
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


def has_image_prompt(denoiser: nn.Module) -> bool:
    """Return whether the denoiser reads image embeddings."""
    return isinstance(getattr(denoiser, "encoder_hid_proj", None), MultiIPAdapterImageProjection)


def get_embedding_width(denoiser: Denoiser) -> int:
    """Return the width E of the embeddings that the denoiser reads."""
    return int(get_projection(denoiser).image_embeds.in_features)


def add_image_prompt(denoiser: Denoiser, width: int) -> Denoiser:
    """Give the denoiser image tokens from embeddings of `width`, in place; returns it. The rest of it keeps its
    `requires_grad`.

    Keys start as the text's (Ye et al.'s own start), values at zero, so the output does not change before training.
    """
    _attach_adapter(denoiser, width)
    start_from_text(denoiser, "k")
    with torch.no_grad():
        for processor in get_image_processors(denoiser).values():
            for parameter in processor.to_v_ip[0].parameters():
                parameter.zero_()
    return denoiser


@torch.no_grad()
def start_from_text(denoiser: Denoiser, kind: str) -> None:
    """Let keys ("k") or values ("v") of image tokens start as the text's, in place."""
    family = get_family(denoiser)
    for name, processor in get_image_processors(denoiser).items():
        layer = getattr(processor, f"to_{kind}_ip")[0]
        weight, bias = family.get_text_projection(denoiser, name, kind)
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)


def get_projection(denoiser: Denoiser) -> ImageProjection:
    """Return the layer that makes image tokens of an embedding."""
    return denoiser.encoder_hid_proj.image_projection_layers[0]


def get_image_processors(denoiser: Denoiser) -> dict[str, Any]:
    """Return what attends to image tokens, by the name of the attention layer, as
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2"."""
    kind = get_family(denoiser).image_processor
    return {
        name.removesuffix(".processor"): processor
        for name, processor in denoiser.attn_processors.items()
        if isinstance(processor, kind)
    }


def get_image_prompt_state(denoiser: Denoiser) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by their names in the file."""
    family, projection = get_family(denoiser), get_projection(denoiser)
    state = {
        "image_proj.proj.weight": projection.image_embeds.weight,
        "image_proj.proj.bias": projection.image_embeds.bias,
        "image_proj.norm.weight": projection.norm.weight,
        "image_proj.norm.bias": projection.norm.bias,
    }
    for place, processor in enumerate(get_image_processors(denoiser).values()):
        for name in ("to_k_ip", "to_v_ip"):
            for kind, parameter in getattr(processor, name)[0].named_parameters():
                state[f"ip_adapter.{family.get_image_number(place)}.{name}.{kind}"] = parameter
    return state


def save_image_prompt(denoiser: Denoiser, config: AdapterConfig, directory: Path) -> None:
    """Write the adapter's weights and config. Raises ValueError for style layers that the denoiser has not."""
    resolve_layer_scales(denoiser, dict.fromkeys(config.style_layers, 1.0))
    directory.mkdir(parents=True, exist_ok=True)
    state = get_image_prompt_state(denoiser)
    save_file({name: weight.detach().cpu().contiguous() for name, weight in state.items()}, directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def load_image_prompt(denoiser: Denoiser, directory: Path) -> Denoiser:
    """Give the denoiser, in place, the adapter that `save_image_prompt` wrote; returns it. ValueError if none fits."""
    if not (directory / WEIGHTS_FILE).is_file():
        raise ValueError(f"{directory} holds no {WEIGHTS_FILE}: name a directory that train_ip_adapter wrote")
    weights = load_file(directory / WEIGHTS_FILE)
    _attach_adapter(denoiser, weights["image_proj.proj.weight"].shape[1])
    state = get_image_prompt_state(denoiser)
    for name in sorted(state.keys() | weights.keys()):
        needed, stored = (list(group[name].shape) if name in group else "none" for group in (state, weights))
        if needed != stored:
            remove_image_prompt(denoiser)
            raise ValueError(
                f"the adapter has {name} {stored}, this denoiser needs {needed}: "
                "an adapter fits the denoiser that it was trained with"
            )
    with torch.no_grad():
        for name, parameter in state.items():
            parameter.copy_(weights[name])
    return denoiser


def remove_image_prompt(denoiser: Denoiser) -> Denoiser:
    """Take the adapter off, in place; returns the denoiser."""
    family = get_family(denoiser)
    plain = {
        name: family.plain_processor() if isinstance(processor, family.image_processor) else processor
        for name, processor in denoiser.attn_processors.items()
    }
    denoiser.set_attn_processor(plain)
    family.attach_projection(denoiser, None)
    return denoiser


def resolve_layer_scales(denoiser: Denoiser, scales: float | Mapping[str, float]) -> dict[str, float]:
    """Return how much image tokens count in each of their attention layers: the same in all, or by the beginning of
    the layer's name, the longest that fits, 0 in the others. Raises ValueError for a name that no layer begins with."""
    family, layers = get_family(denoiser), list(get_image_processors(denoiser))
    if not isinstance(scales, Mapping):
        return dict.fromkeys(layers, float(scales))
    if unknown := sorted(name for name in scales if not any(_is_within(layer, name) for layer in layers)):
        blocks = sorted({family.get_block(layer) for layer in layers})
        raise ValueError(f"no image layer is called {', '.join(unknown)}: there are {', '.join(blocks)}")
    longest = {
        layer: max((name for name in scales if _is_within(layer, name)), key=len, default=None) for layer in layers
    }
    return {layer: 0.0 if name is None else float(scales[name]) for layer, name in longest.items()}


def set_scale(denoiser: Denoiser, scale: float) -> None:
    """Set how much image tokens count from now on, in all layers."""
    for processor in get_image_processors(denoiser).values():
        processor.scale = [scale]


@contextmanager
def use_image_prompts(denoiser: Denoiser, sets: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Within the context the denoiser reads a list of S image embeddings (B, 1, E), each attended to on its own; set s
    counts in a layer as `sets[s][layer]` (`resolve_layer_scales`) says."""
    processors, projection = get_image_processors(denoiser), denoiser.encoder_hid_proj
    before = {name: (processor.scale, processor.to_k_ip, processor.to_v_ip) for name, processor in processors.items()}
    try:
        denoiser.encoder_hid_proj = MultiIPAdapterImageProjection([get_projection(denoiser)] * len(sets))
        for name, processor in processors.items():
            processor.scale = [scales[name] for scales in sets]
            processor.to_k_ip = _repeat_layer(processor.to_k_ip[0], len(sets))
            processor.to_v_ip = _repeat_layer(processor.to_v_ip[0], len(sets))
        yield
    finally:
        denoiser.encoder_hid_proj = projection
        for name, processor in processors.items():
            processor.scale, processor.to_k_ip, processor.to_v_ip = before[name]


@contextmanager
def apply_style(denoiser: Denoiser, sets: Sequence[Mapping[str, float]] | None) -> Iterator[None]:
    """Within the context image embeddings count as `use_image_prompts` says, and the LoRA that was trained with them
    by their sum; None: as they are."""
    if sets is None:
        yield
        return
    assert has_image_prompt(denoiser), "a style for a denoiser without image prompts"
    set_style_lora(denoiser, sum_scales(sets))
    try:
        with use_image_prompts(denoiser, sets):
            yield
    finally:
        set_style_lora(denoiser, None)


def sum_scales(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how much all sets together count, by layer."""
    return {name: sum(scales[name] for scales in sets) for name in sets[0]}


def _attach_adapter(denoiser: Denoiser, width: int) -> None:
    family, place = get_family(denoiser), {"device": denoiser.device, "dtype": denoiser.dtype}
    processors = {}
    for name, processor in denoiser.attn_processors.items():
        layer = name.removesuffix(".processor")
        is_read = family.has_image_layer(layer)
        processors[name] = family.build_image_processor(denoiser, layer).to(**place) if is_read else processor
    denoiser.set_attn_processor(processors)
    projection = ImageProjection(width, family.get_input_sizes(denoiser.config).text, IMAGE_TOKENS)
    family.attach_projection(denoiser, MultiIPAdapterImageProjection([projection]).to(**place))


def _repeat_layer(layer: nn.Module, times: int) -> nn.ModuleList:
    """Repeat the layer, as modules of their own, whose outputs are cached one by one, with the same weights."""
    return nn.ModuleList([layer, *(copy.copy(layer) for _ in range(times - 1))])


def _is_within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
