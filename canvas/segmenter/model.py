"""Product segmentation: images in, the opacity of the product in each pixel out.

Any semantic segmentation model of transformers serves, and any matting model that `canvas.segmenter.matting` reads;
the demo's own is a small U-Net in the same form.
Shapes: B images, C classes, S x S the side that the network sees.
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

from canvas.features.imagenet import MEAN, STD, WIDTHS, Trunk, TrunkConfig, load_pretrained_weights
from canvas.hub import Snapshot, fetch_snapshot, write_source
from canvas.loading import load_with_processor
from canvas.pins.images import composite_on_white
from canvas.pins.masks import Alpha, apply_guided_filter
from canvas.segmenter.matting import READING_FILE, MattingNetwork, load_matting_network
from canvas.segmenter.spec import EdgeSpec, MattingSpec, SegmenterTrainingSpec, UNetSpec


class ProductUNetConfig(PreTrainedConfig):  # type: ignore[misc]
    model_type = "product_unet"

    channels: list[int] | tuple[int, ...] = (16, 24, 32, 48)


class ProductUNet(PreTrainedModel):  # type: ignore[misc]
    """A U-Net (Ronneberger et al. 2015) whose way down is a frozen pretrained trunk.

    pixel_values [B, 3, S, S] normalised, S a multiple of 32 -> logits [B, C, S, S]. The last level works at stride 2
    and puts out four sub-pixels each (Shi et al. 2016): a quarter of the work of a level at full resolution.
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
    """A semantic segmentation network that answers one question: is this pixel product?

    `background` names the classes that are not; a network of one class says it directly. The log-odds of product
    are the log-sum-exp of its classes less that of the background's.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: PreTrainedModel, processor: Any, background: Sequence[str] | None = None) -> None:
        """Take a network with its image processor; `background` None: the classes that it was saved with."""
        super().__init__()
        if background is None:
            background = getattr(network.config, "background_labels", ())
        self.network = network
        self.processor = processor
        self.size = int(processor.size.get("height") or processor.size.get("shortest_edge"))
        for name, values in (("mean", processor.image_mean), ("std", processor.image_std)):
            self.register_buffer(name, torch.tensor(values, device=network.device).view(1, 3, 1, 1), persistent=False)
        classes = [network.config.id2label[index] for index in range(network.config.num_labels)]
        if len(classes) == 1 and background:
            raise ValueError(
                f"background classes {list(background)} are given, but this segmenter has but one, product"
            )
        self.background_classes = [index for index, name in enumerate(classes) if name in background]
        if len(classes) > 1 and (set(background) - set(classes) or not 0 < len(self.background_classes) < len(classes)):
            raise ValueError(
                f"background is {list(background)}: name those classes of the segmenter that are no product, "
                f"of {', '.join(classes[:40])}"
            )
        network.config.background_labels = list(background)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return log-odds of product [B, 1, S, S] of RGB images in 0..1 [B, 3, S, S]."""
        logits: torch.Tensor = self.network(pixel_values=(pixels - self.mean) / self.std).logits
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
        pixels = torch.stack([make_square_tensor(image, self.size) for image in images]).to(self.mean.device) / 255
        alphas: list[Alpha] = []
        for logits, image in zip(self(pixels).float().cpu(), images, strict=True):
            size = image.height, image.width
            resized = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
            alpha = resized.sigmoid_()[0, 0].numpy()
            if edges.radius:
                alpha = apply_guided_filter(alpha, composite_on_white(image), edges.radius, edges.epsilon)
            alphas.append(alpha)
        return alphas

    def save(self, directory: Path) -> None:
        """Write weights, config and image processor, as transformers' own `from_pretrained` loads them, and where
        public weights came from."""
        self.network.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        if (source := getattr(self.network.config, "source", None)) is not None:
            write_source(source, directory)


def build_segmenter(spec: UNetSpec) -> Segmenter:
    """Build the demo's U-Net: pretrained trunk, the rest with random weights from torch's generator."""
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
        return load_public_segmenter(spec.init_from, spec.background, spec.matting)
    return load_trainable_segmenter(spec.init_from)


def load_segmenter(directory: str | Path) -> Segmenter:
    """Load the segmenter that `Segmenter.save` wrote, in eval mode; a matting model's own code runs again.

    Raises:
        ValueError: The directory holds none.
    """
    if (Path(directory) / READING_FILE).is_file():
        network = MattingNetwork.from_pretrained(directory)
        return Segmenter(network, AutoImageProcessor.from_pretrained(str(directory), trust_remote_code=False)).eval()
    return Segmenter(*_load_network(directory)).eval()


def load_public_segmenter(
    source: str,
    background: Sequence[str] | None = (),
    matting: MattingSpec | None = None,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
) -> Segmenter:
    """Load a segmenter of others as it is, in eval mode; its network's `config.source` says where it came from.

    Args:
        source: A directory, or a hub id as OWNER/NAME@REVISION; where `matting` is given, an ONNX file as well.
        background: Classes of a semantic segmentation model that are no product; None: those saved with it.
        matting: How a matting model is read; None: it is a semantic segmentation model of transformers.
        revision: As `fetch_snapshot` takes it.
        subfolder: Likewise.

    Raises:
        ValueError: It cannot be fetched, is no such model in safetensors or ONNX, or lacks a named class.
    """
    if matting is None:
        snapshot = fetch_snapshot(source, revision=revision, subfolder=subfolder)
        return Segmenter(*_load_public_network(snapshot), background).eval()
    network, image_format = load_matting_network(source, matting, revision=revision, subfolder=subfolder)
    return Segmenter(network, SegformerImageProcessor(**image_format), background).eval()


def load_trainable_segmenter(source: str) -> Segmenter:
    """Load the segmenter at a path or hub id with a new last layer of one class, product; in train mode."""
    network, processor = _load_public_network(fetch_snapshot(source), num_labels=1, ignore_mismatched_sizes=True)
    return Segmenter(network, processor, ()).train()


def make_square_tensor(image: Image.Image, side: int) -> torch.Tensor:
    """Return the whole image as a square, RGB on white, uint8 [3, side, side]."""
    resampling = Image.Resampling.BOX if min(image.size) > side else Image.Resampling.BICUBIC
    return torch.from_numpy(np.array(composite_on_white(image).resize((side, side), resampling))).permute(2, 0, 1)


def _load_public_network(snapshot: Snapshot, **options: object) -> tuple[PreTrainedModel, Any]:
    network, processor = _load_network(snapshot.folder, **options)
    network.config.source = snapshot.describe()
    return network, processor


def _load_network(source: str | Path, **options: object) -> tuple[PreTrainedModel, Any]:
    AutoConfig.register(ProductUNetConfig.model_type, ProductUNetConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(ProductUNetConfig, ProductUNet, exist_ok=True)
    return load_with_processor(
        AutoModelForSemanticSegmentation, AutoImageProcessor, source, "semantic segmentation", **options
    )
