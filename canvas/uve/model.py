"""Unified visual embedding (UVE): one vector of an image for several label tasks.

A trunk of timm (canvas.features.timm_trunk adds one), a projection, LayerNorm without affine and L2 (Zhai and
Wu 2019, "Classification is a strong baseline for deep metric learning"; Zhai et al. 2019 for the tasks). Shapes: B
images, E the embedding's width.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from canvas.features.timm_trunk import NAME as PHOTO_TRUNK
from canvas.loading import load_initial_model, load_stage_model
from canvas.uve.spec import UveSpec

JUDGE_TRUNKS = ("efficientnet_lite0", "tf_efficientnet_lite0")
"""Trunks that judge the generator's images: nothing that steers the generator may use them."""


class UveModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Build it with `build_uve`, load it with `load_uve`, call it with `compute_embeddings`."""

    mean: torch.Tensor
    std: torch.Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, trunk: str, trunk_args: dict[str, Any], image_size: int, embed_dim: int) -> None:
        super().__init__()
        self.network = _build_trunk(trunk, trunk_args, image_size)
        self.projection = nn.Linear(self.network.num_features, embed_dim, bias=False)
        self.norm = nn.LayerNorm(embed_dim, elementwise_affine=False)
        for name in ("mean", "std"):
            values = torch.tensor(self.network.pretrained_cfg[name]).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, E) of images (B, 3, S, S) in [-1, 1]."""
        features = self.network(((images + 1) / 2 - self.mean) / self.std)
        return F.normalize(self.norm(self.projection(features)), dim=1)


def _build_trunk(name: str, args: Mapping[str, Any], image_size: int, *, pretrained: bool = False) -> Any:
    config = timm.get_pretrained_cfg(name.partition(".")[0], allow_unregistered=True)
    # Convolutional trunks take any size; others are built for one.
    size = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    return timm.create_model(name, pretrained=pretrained, num_classes=0, **{**size, **args})


def build_uve(spec: UveSpec) -> UveModel:
    """Build the model of `spec`, with random weights from torch's generator or those of `init_from`.

    Raises ValueError for a trunk that timm does not know or that is a judge's, for arguments or a size that the trunk
    does not take, and for weights of another architecture.
    """
    name = spec.trunk.partition(".")[0]
    if name in JUDGE_TRUNKS:
        raise ValueError(f"uve.trunk {spec.trunk} judges the generator's images: choose another, as {PHOTO_TRUNK}")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"uve.trunk {spec.trunk!r} is unknown to timm: try {', '.join(close) or 'resnet10t'}")
    config = {key: getattr(spec, key) for key in ("trunk", "trunk_args", "image_size", "embed_dim")}
    if spec.init_from is not None and spec.init_from != "timm":
        return load_initial_model(UveModel, spec.init_from, config, "uve")
    try:
        model = UveModel(**config)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, spec.image_size, spec.image_size))
        model.train()
    except (TypeError, RuntimeError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"uve.trunk {spec.trunk} cannot be built with {spec.trunk_args} for {spec.image_size} pixels: {reason}"
        ) from None
    if spec.init_from == "timm":
        pretrained = _build_trunk(spec.trunk, spec.trunk_args, spec.image_size, pretrained=True)
        model.network.load_state_dict(pretrained.state_dict())
    return model


def load_uve(path: str | Path) -> UveModel:
    """Load the model in a directory that `save_pretrained` wrote, in eval mode; ValueError if it is none."""
    return load_stage_model(UveModel, path, "train_uve")


@torch.no_grad()
def compute_embeddings(model: UveModel, images: torch.Tensor) -> torch.Tensor:
    """Return unit vectors (B, E) of images (B, 3, H, W) in [-1, 1], resized whole to a square: a crop drops edges.

    `model` must be in eval mode; the result is on its device, in float32.
    """
    assert not model.training, "an embedding must not depend on what else is in the batch: call eval()"
    size = (model.config["image_size"],) * 2
    images = images.to(model.device, torch.float32)
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    embeddings: torch.Tensor = model(images.to(model.dtype))
    return embeddings.float()


def pack_codes(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return binary codes (B, E / 8) of embeddings (B, E): their signs, eight to a byte."""
    return np.packbits(embeddings > 0, axis=1)


def unpack_codes(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return unit vectors (B, E) of -1 and 1 over the root of E from codes (B, E / 8).

    Their dot product is 1 - 2 h / E at a Hamming distance of h bits.
    """
    bits = np.unpackbits(codes, axis=1).astype(np.float32)
    return (2 * bits - 1) / np.float32(np.sqrt(bits.shape[1]))
