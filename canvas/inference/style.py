"""A style in images: how they condition the denoiser, how much, and where.

S token sets: the images averaged are one set; apart they are one each, attended to on their own and added up by
weight. E: width of the image embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

from canvas.denoiser.image_prompt import has_image_prompt, resolve_layer_scales, sum_scales
from canvas.features.vectors import Vectors
from canvas.pins.image_batches import resize_to_square
from canvas.styles.table import CENTRE_PULL, MAX_STRENGTH
from canvas.uve.pin_embeddings import average_embeddings, concatenate_embeddings
from canvas.uve.table import choose_input_side, embed_arrays

if TYPE_CHECKING:
    from canvas.inference.pipeline import CanvasPipeline

MAX_STYLE_IMAGES = 16
STYLE_SCALE_WITH_PROMPT = 0.5
"""Share of a style's strength that counts beside a prompt (Ye et al. advise it): both at once guide too far."""
WEIGHT_TOLERANCE = 1e-3
"""How far the sum of weights may be from 1."""

Layers = Literal["all", "style"] | Mapping[str, float]
"""Where style images count: in every cross-attention layer, in those that carry style alone (InstantStyle, Wang et al.
2024), or by the beginnings of layers' names with a factor each."""


@dataclass(frozen=True, slots=True)
class StylePrompt:
    """The condition on style images."""

    embeddings: torch.Tensor  # (S, E)
    scales: tuple[Mapping[str, float], ...]  # S, each of all layers (canvas.denoiser.image_prompt.resolve_layer_scales)

    @property
    def strengths(self) -> dict[str, float]:
        """Strengths of all images together, by layer."""
        return sum_scales(self.scales)

    def scale_for_prompt(self, prompt: str | None) -> StylePrompt:
        """Return the style as it counts beside `prompt`; None: alone."""
        if prompt is None:
            return self
        scales = tuple(
            {name: STYLE_SCALE_WITH_PROMPT * scale for name, scale in layers.items()} for layers in self.scales
        )
        return StylePrompt(self.embeddings, scales)


def encode_style_images(
    pipeline: CanvasPipeline,
    images: Sequence[Image.Image],
    *,
    weights: Sequence[float] | None = None,
    apart: bool = False,
    centre_pull: float = CENTRE_PULL,
    strength: float | None = None,
    layers: Layers = "all",
) -> StylePrompt:
    """Return the style of 1 to MAX_STYLE_IMAGES images.

    Args:
        pipeline: Whose adapter and embeddings are used.
        images: The style images.
        weights: One each, which sum to 1; None: equal.
        apart: A token set each; else they are averaged.
        centre_pull: How far each set is drawn to the nearest mined cluster: from 0, not at all, to 1, the cluster.
        strength: From 0, no style, over 1, as trained, to MAX_STRENGTH; None: what the model recommends.
        layers: Where the style counts.

    Raises:
        ValueError: In one sentence, for what cannot be used.
    """
    _check_adapter(pipeline)
    check_image_count(len(images))
    if not 0 <= centre_pull <= 1:
        raise ValueError(
            f"the pull to the nearest cluster is {centre_pull}: it must be from 0, the image itself, to 1, the cluster"
        )
    check_weights(weights, len(images))
    shares = [1 / len(images)] * len(images) if weights is None else list(weights)
    tower, uve = pipeline.image_tower.clip, pipeline.uve
    side = choose_input_side(uve, tower)
    uves, clips = embed_arrays(uve, tower, [resize_to_square(image, side) for image in images], MAX_STYLE_IMAGES)
    parts = {"uve": uves, "clip": clips}
    if not apart:
        parts, shares = average_embeddings(parts, shares), [1.0]
    if centre_pull and pipeline.style_centres is not None:
        parts = pipeline.style_centres.pull_to_centres(parts, pipeline.config["image_source"], centre_pull)
    return build_style_prompt(pipeline, parts, shares=shares, strength=strength, layers=layers)


def build_style_prompt(
    pipeline: CanvasPipeline,
    parts: Mapping[str, Vectors],
    *,
    shares: Sequence[float] = (1.0,),
    strength: float | None = None,
    layers: Layers = "all",
) -> StylePrompt:
    """Return the style of embeddings: a mined style's, or a pin's.

    Args:
        pipeline: Whose adapter is used.
        parts: "uve" and "clip" [S, ...], of unit length.
        shares: Of each of the S sets in the strength.
        strength: From 0, no style, over 1, as trained, to MAX_STRENGTH; None: what the model recommends.
        layers: Where the style counts.

    Raises:
        ValueError: The model has no adapter or no style layers, or a number is out of range.
    """
    _check_adapter(pipeline)
    strength = pipeline.recommended_sampling.style_strength if strength is None else strength
    check_strength(strength)
    wanted: float | Mapping[str, float] = 1.0
    if layers == "style":
        if not pipeline.config["style_layers"]:
            raise ValueError("layers is 'style', but this model has no style layers: use 'all'")
        wanted = dict.fromkeys(pipeline.config["style_layers"], 1.0)
    elif isinstance(layers, Mapping):
        wanted = layers
    check_layers(wanted)
    factors = resolve_layer_scales(pipeline.denoiser, wanted)
    scales = tuple({name: strength * share * factor for name, factor in factors.items()} for share in shares)
    return StylePrompt(torch.from_numpy(concatenate_embeddings(parts, pipeline.config["image_source"])), scales)


def check_image_count(images: int) -> None:
    """Raise ValueError for none and for too many."""
    if not 1 <= images <= MAX_STYLE_IMAGES:
        raise ValueError(f"{images} style images were given: give 1 to {MAX_STYLE_IMAGES}")


def _check_adapter(pipeline: CanvasPipeline) -> None:
    if not has_image_prompt(pipeline.denoiser):
        raise ValueError("this model has no image-prompt adapter, so it knows no style: assemble it with one")


def check_weights(weights: Sequence[float] | None, count: int) -> None:
    """Raise ValueError for weights of style images that are not one each, or do not sum to 1; None: equal ones."""
    if weights is None:
        return
    if len(weights) != count:
        raise ValueError(f"{len(weights)} style weights were given for {count} images: give one each")
    if min(weights) < 0 or not np.isclose(sum(weights), 1, atol=WEIGHT_TOLERANCE):  # false for NaN and infinity
        raise ValueError(f"the style weights {list(weights)} sum to {sum(weights):g}: give 0 or more each, 1 together")


def check_strength(strength: float | None) -> None:
    """Raise ValueError for a strength out of range; None: what the model recommends."""
    if strength is not None and not 0 <= strength <= MAX_STRENGTH:
        raise ValueError(f"the style strength is {strength}: it must be from 0, no style, to {MAX_STRENGTH:g}")


def check_layers(layers: float | Layers) -> None:
    """Raise ValueError for a layer's factor out of range."""
    for name, factor in layers.items() if isinstance(layers, Mapping) else ():
        if not 0 <= factor <= MAX_STRENGTH:
            raise ValueError(f"the style's factor {name}={factor:g} must be from 0 to {MAX_STRENGTH:g}")
