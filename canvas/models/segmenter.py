"""Product segmentation: pictures in, the opacity of the product in each pixel out.

Any semantic segmentation model of transformers serves; the demo's own is a small U-Net in the same form.
Shapes: B pictures, C classes, S x S the side that the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerImageProcessor,
)
from transformers.modeling_outputs import SemanticSegmenterOutput

from canvas.data.images import on_white
from canvas.data.masks import Alpha, guided

MODEL_TYPE = "product_unet"


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetSpec:
    """The demo's network."""

    image_size: int  # side of the square that pictures are resized to
    channels: tuple[int, ...]  # of each level, fine to coarse; each level halves the side
    patch: int  # pixels of a patch's side that the first level takes as one

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or self.patch < 1:
            raise ValueError(f"a U-Net needs two levels or more and a patch of 1 or more, not {self}")
        if self.image_size % (multiple := self.patch * 2 ** (len(self.channels) - 1)):
            raise ValueError(f"image_size is {self.image_size}: it must be a multiple of {multiple} for this U-Net")


class ProductUNetConfig(PreTrainedConfig):
    model_type = MODEL_TYPE

    channels: list[int] | tuple[int, ...] = (32, 64)
    patch: int = 2


class ProductUNet(PreTrainedModel):
    """A U-Net (Ronneberger et al. 2015) on patches of pixels: [B, 3, S, S] normalised -> logits [B, C, S, S].

    Pixels of a patch become channels before the first level and come out of the last as sub-pixels (Shi et al.
    2016): a quarter of the work at full resolution for a patch of 2, at hardly any loss of detail.
    """

    config_class = ProductUNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ProductUNetConfig) -> None:
        super().__init__(config)
        channels, cell = list(config.channels), config.patch**2
        self.down = nn.ModuleList(_block(inner, outer) for inner, outer in pairwise([3 * cell, *channels]))
        self.up = nn.ModuleList(_block(below + here, here) for here, below in reversed(list(pairwise(channels))))
        self.head = nn.Conv2d(channels[0], config.num_labels * cell, kernel_size=1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        x = F.pixel_unshuffle(pixel_values, self.config.patch)
        passed_on = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            passed_on.append(x)
        passed_on.pop()
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), passed_on.pop()], dim=1))
        return SemanticSegmenterOutput(logits=F.pixel_shuffle(self.head(x), self.config.patch))


def _block(inner: int, outer: int) -> nn.Sequential:
    def half(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]

    return nn.Sequential(*half(inner), *half(outer))


class Segmenter(nn.Module):
    """A semantic segmentation network asked one thing: is this pixel product?

    `background` names the classes that are not; a network of one class says it directly. The log-odds of product
    are the log-sum-exp of its classes less that of the background's.
    """

    def __init__(self, network: PreTrainedModel, processor: Any, background: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.processor = processor
        self.size = _side(processor)
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        classes = [network.config.id2label[index] for index in range(network.config.num_labels)]
        if len(classes) == 1 and background:
            raise ValueError(f"background classes {list(background)} are given, but this segmenter has but one, product")
        if len(classes) > 1 and (not background or set(background) - set(classes) or not set(classes) - set(background)):
            raise ValueError(
                f"background is {list(background)}: name those classes of the segmenter that are no product, "
                f"of {', '.join(classes[:40])}"
            )
        self.background_classes = [index for index, name in enumerate(classes) if name in background]
        network.config.background_labels = list(background)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """RGB in 0..1, [B, 3, S, S] -> log-odds of product, [B, 1, S, S]."""
        logits = self.network(pixel_values=(pixels - self.mean) / self.std).logits
        if logits.shape[1] > 1:
            product = [i for i in range(logits.shape[1]) if i not in self.background_classes]
            rest = logits[:, self.background_classes].logsumexp(1, keepdim=True)
            logits = logits[:, product].logsumexp(1, keepdim=True) - rest
        if logits.shape[-2:] != pixels.shape[-2:]:
            logits = F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    @torch.inference_mode()
    def alphas(self, images: Sequence[Image.Image], edges: EdgeSpec) -> list[Alpha]:
        """The matte of each picture in its own size, float32 [h, w] in 0..1."""
        device = self.mean.device
        logits = self(torch.stack([square(image, self.size) for image in images]).to(device) / 255).float().cpu()
        return [_alpha(logit, image, edges) for logit, image in zip(logits, images, strict=True)]

    def save(self, directory: Path) -> None:
        """Weights, config and image processor, as transformers' own `from_pretrained` loads them."""
        self.network.save_pretrained(directory)
        self.processor.save_pretrained(directory)


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSpec:
    """How a matte of the network's resolution is brought to the picture's."""

    radius: int  # of the guided filter in pixels of the picture; 0: bilinear alone
    epsilon: float  # of the guided filter: variance of luma, 0..1, that counts as an edge

    def __post_init__(self) -> None:
        if self.radius < 0 or self.epsilon <= 0:
            raise ValueError(f"edges need a radius of 0 or more and an epsilon above 0, not {self}")


def build_segmenter(spec: UNetSpec) -> Segmenter:
    """The demo's U-Net with random weights, from torch's generator."""
    config = ProductUNetConfig(channels=list(spec.channels), patch=spec.patch, num_labels=1)
    size = {"height": spec.image_size, "width": spec.image_size}
    return Segmenter(ProductUNet(config), SegformerImageProcessor(size=size))


def load_segmenter(source: str | Path, background: Sequence[str] | None = None) -> Segmenter:
    """The segmenter at a path or hub id, in eval mode; with the background classes saved with it, or those given.

    Raises `ValueError` if it is no semantic segmentation model in safetensors, or lacks a named class.
    """
    network, processor = _loaded(source)
    if background is None:
        background = getattr(network.config, "background_labels", ())
    return Segmenter(network, processor, background).eval()


def segmenter_to_tune(source: str | Path) -> Segmenter:
    """The segmenter at a path or hub id with a new last layer of one class, product; in train mode."""
    network, processor = _loaded(source, num_labels=1, ignore_mismatched_sizes=True)
    return Segmenter(network, processor).train()


def square(image: Image.Image, side: int) -> torch.Tensor:
    """The picture squeezed into a square, RGB on white, uint8 [3, side, side]."""
    small = on_white(image).resize((side, side), Image.Resampling.BOX if min(image.size) > side else Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _loaded(source: str | Path, **options: object) -> tuple[PreTrainedModel, Any]:
    AutoConfig.register(MODEL_TYPE, ProductUNetConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(ProductUNetConfig, ProductUNet, exist_ok=True)
    try:
        network = AutoModelForSemanticSegmentation.from_pretrained(str(source), use_safetensors=True, **options)
        return network, AutoImageProcessor.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source} is no semantic segmentation model of transformers in safetensors: {reason}") from None


def _side(processor: Any) -> int:
    size = processor.size
    return int(size.get("height") or size.get("shortest_edge"))


def _alpha(logit: torch.Tensor, image: Image.Image, edges: EdgeSpec) -> Alpha:
    resized = F.interpolate(logit[None], size=image.size[::-1], mode="bilinear", align_corners=False)
    alpha: Alpha = resized.sigmoid()[0, 0].numpy()
    return guided(alpha, on_white(image), edges.radius, edges.epsilon) if edges.radius else alpha
