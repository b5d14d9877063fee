"""Product segmentation: pictures in, the opacity of the product in each pixel out.

Any semantic segmentation model of transformers serves; the demo's own is a small U-Net in the same form.
Shapes: B pictures, C classes, S x S the side that the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
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

from canvas.device import LOADING_LOCK
from canvas.features.imagenet import MEAN, STD, WIDTHS, Trunk, TrunkConfig, load_pretrained_weights
from canvas.pins.images import composite_on_white
from canvas.pins.masks import Alpha, apply_guided_filter
from canvas.segmenter.spec import EdgeSpec, SegmenterTrainingSpec, UNetSpec

MODEL_TYPE = "product_unet"


class ProductUNetConfig(PreTrainedConfig):
    model_type = MODEL_TYPE

    channels: list[int] | tuple[int, ...] = (16, 24, 32, 48)


class ProductUNet(PreTrainedModel):
    """A U-Net (Ronneberger et al. 2015) whose way down is a pretrained trunk and stays as it is.

    pixel_values [B, 3, S, S] normalised, S a multiple of 32 -> logits [B, C, S, S]. The last level works at stride 2
    and puts out four sub-pixels a place (Shi et al. 2016): a quarter of the work of a level at full resolution.
    """

    config_class = ProductUNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ProductUNetConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(TrunkConfig())
        below = [*config.channels[1:], WIDTHS[-1]]  # fine to coarse
        levels = list(zip(below, WIDTHS[:-1], config.channels, strict=True))
        self.up = nn.ModuleList(_build_block(coarse + skip, outer) for coarse, skip, outer in reversed(levels))
        self.head = nn.Conv2d(config.channels[0], config.num_labels * 4, kernel_size=1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        *skips, x = self.trunk.pyramid(pixel_values)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], dim=1))
        return SemanticSegmenterOutput(logits=F.pixel_shuffle(self.head(x), 2))


def _build_block(inner: int, outer: int) -> nn.Sequential:
    def half(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]

    return nn.Sequential(*half(inner), *half(outer))


class Segmenter(nn.Module):
    """A semantic segmentation network asked one thing: is this pixel product?

    `background` names the classes that are not; a network of one class says it directly. The log-odds of product
    are the log-sum-exp of its classes less that of the background's.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: PreTrainedModel, processor: Any, background: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.processor = processor
        self.size = _read_side(processor)
        mean, std = (torch.tensor(of, device=network.device) for of in (processor.image_mean, processor.image_std))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        classes = [network.config.id2label[index] for index in range(network.config.num_labels)]
        if len(classes) == 1 and background:
            raise ValueError(
                f"background classes {list(background)} are given, but this segmenter has but one, product"
            )
        if len(classes) > 1 and (
            not background or set(background) - set(classes) or not set(classes) - set(background)
        ):
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
    def predict_alphas(self, images: Sequence[Image.Image], edges: EdgeSpec) -> list[Alpha]:
        """Return the matte of each image in its own size, float32 [h, w] in 0..1."""
        device = self.mean.device
        logits = (
            self(torch.stack([make_square_tensor(image, self.size) for image in images]).to(device) / 255).float().cpu()
        )
        return [_compute_alpha(logit, image, edges) for logit, image in zip(logits, images, strict=True)]

    def save(self, directory: Path) -> None:
        """Weights, config and image processor, as transformers' own `from_pretrained` loads them."""
        self.network.save_pretrained(directory)
        self.processor.save_pretrained(directory)


def build_segmenter(spec: UNetSpec) -> Segmenter:
    """The demo's U-Net: pretrained trunk, the rest with random weights from torch's generator."""
    network = ProductUNet(ProductUNetConfig(channels=list(spec.channels), num_labels=1))
    load_pretrained_weights(network.trunk)
    size = {"height": spec.image_size, "width": spec.image_size}
    return Segmenter(network, SegformerImageProcessor(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3))


def initialize_segmenter(spec: SegmenterTrainingSpec) -> Segmenter:
    """Return the segmenter that training starts from, or that is used as it is where there is none."""
    if spec.unet is not None:
        return build_segmenter(spec.unet)
    assert spec.init_from is not None
    if spec.train is None:
        return load_segmenter(spec.init_from, spec.background)
    return load_trainable_segmenter(spec.init_from)


def load_segmenter(source: str | Path, background: Sequence[str] | None = None) -> Segmenter:
    """The segmenter at a path or hub id, in eval mode; with the background classes saved with it, or those given.

    Raises `ValueError` if it is no semantic segmentation model in safetensors, or lacks a named class.
    """
    network, processor = _load_network(source)
    if background is None:
        background = getattr(network.config, "background_labels", ())
    return Segmenter(network, processor, background).eval()


def load_trainable_segmenter(source: str | Path) -> Segmenter:
    """The segmenter at a path or hub id with a new last layer of one class, product; in train mode."""
    network, processor = _load_network(source, num_labels=1, ignore_mismatched_sizes=True)
    return Segmenter(network, processor).train()


def make_square_tensor(image: Image.Image, side: int) -> torch.Tensor:
    """The picture squeezed into a square, RGB on white, uint8 [3, side, side]."""
    small = composite_on_white(image).resize(
        (side, side), Image.Resampling.BOX if min(image.size) > side else Image.Resampling.BICUBIC
    )
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _load_network(source: str | Path, **options: object) -> tuple[PreTrainedModel, Any]:
    AutoConfig.register(MODEL_TYPE, ProductUNetConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(ProductUNetConfig, ProductUNet, exist_ok=True)
    try:
        with LOADING_LOCK:
            network = AutoModelForSemanticSegmentation.from_pretrained(str(source), use_safetensors=True, **options)
        return network, AutoImageProcessor.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{source} is no semantic segmentation model of transformers in safetensors: {reason}"
        ) from None


def _read_side(processor: Any) -> int:
    size = processor.size
    return int(size.get("height") or size.get("shortest_edge"))


def _compute_alpha(logit: torch.Tensor, image: Image.Image, edges: EdgeSpec) -> Alpha:
    resized = F.interpolate(logit[None], size=image.size[::-1], mode="bilinear", align_corners=False)
    alpha: Alpha = resized.sigmoid()[0, 0].numpy()
    return apply_guided_filter(alpha, composite_on_white(image), edges.radius, edges.epsilon) if edges.radius else alpha
