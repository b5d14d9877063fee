"""Unified visual embedding (UVE): one vector of an image for several label tasks.

A trunk of timm (canvas.features adds those of timm_trunk and transformers_trunk), a projection, LayerNorm without
affine and L2 (Zhai and Wu 2019, "Classification is a strong baseline for deep metric learning"; Zhai et al. 2019 for
the tasks). A public embedding as it is has no projection: what its trunk pools, and L2. Shapes: B images, E the
embedding's width.
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
from canvas.features.transformers_trunk import NAME as TRANSFORMERS
from canvas.hub import LICENCE_UNKNOWN, fetch_snapshot, record_source, write_source
from canvas.loading import load_initial_model, load_stage_model, read_model_config
from canvas.uve.public_trunk import BUILD_ERRORS, load_public_trunk
from canvas.uve.spec import UveSpec

JUDGE_TRUNKS = ("efficientnet_lite0", "tf_efficientnet_lite0")
"""Trunks that judge the generator's images: nothing that steers the generator may use them."""


class UveModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Build it with `build_uve`, load it with `load_uve`, call it with `compute_embeddings`.

    `embed_dim` None: without a projection; `width` is the trunk's then.
    """

    mean: torch.Tensor
    std: torch.Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, trunk: str, trunk_args: dict[str, Any], image_size: int, embed_dim: int | None) -> None:
        super().__init__()
        self.network = _build_trunk(trunk, trunk_args, image_size)
        self.width: int = embed_dim or self.network.num_features
        self.projection: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if embed_dim is not None:
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


def build_uve(spec: UveSpec, *, trains: bool = True) -> UveModel:
    """Build the model of `spec`, with random weights from torch's generator or those of `init_from`.

    Args:
        spec: The network.
        trains: Whether it will be trained. Else a projection would be random: the trunk's output is the embedding.

    Raises:
        ValueError: For a trunk that timm does not know or that is a judge's; arguments, a size or a width that the
            trunk does not take; and weights that are not there or of another architecture.
    """
    _check_trunk(spec)
    public = None
    if spec.init_from is not None and spec.init_from != "timm":
        folder = fetch_snapshot(spec.init_from).folder
        if read_model_config(folder).get("_class_name") == UveModel.__name__:
            return _load_initial(spec, folder)
        public = load_public_trunk(spec, folder)
    args: dict[str, Any] = spec.trunk_args if public is None else public.args
    size = _choose_image_size(spec) if public is None else public.image_size
    try:
        model = UveModel(spec.trunk, args, size, spec.embed_dim if trains else None)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
        model.train()
    except BUILD_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"uve.trunk {spec.trunk} cannot be built with {spec.trunk_args} for {size} pixels: {reason}"
        ) from None
    if spec.embed_dim not in (None, model.width):
        raise ValueError(
            f"uve.embed_dim is {spec.embed_dim}, but nothing trains a projection and {spec.trunk} gives {model.width} "
            "numbers: set it to null"
        )
    if model.width % 8:
        raise ValueError(f"uve.trunk {spec.trunk} gives {model.width} numbers: codes need a multiple of 8")
    if public is not None:
        model.network.load_state_dict(public.weights)
    elif spec.init_from == "timm":
        pretrained = _build_trunk(spec.trunk, spec.trunk_args, size, pretrained=True)
        model.network.load_state_dict(pretrained.state_dict())
    return model


def _check_trunk(spec: UveSpec) -> None:
    name = spec.trunk.partition(".")[0]
    if name in JUDGE_TRUNKS:
        raise ValueError(f"uve.trunk {spec.trunk} judges the generator's images: choose another, as {PHOTO_TRUNK}")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"uve.trunk {spec.trunk!r} is unknown to timm: try {', '.join(close) or 'resnet10t'}")
    if name == TRANSFORMERS and spec.init_from in (None, "timm"):
        raise ValueError(f"uve.trunk is {TRANSFORMERS}: name a directory or a hub id of such a model in uve.init_from")


def _load_initial(spec: UveSpec, folder: Path) -> UveModel:
    """Load what `train_uve` wrote; what params leave to it (null, no arguments) may be anything."""
    config = {"trunk": spec.trunk, "trunk_args": spec.trunk_args or None, "image_size": spec.image_size}
    expected = {name: value for name, value in config.items() if value is not None}
    model = load_initial_model(UveModel, folder, expected, "uve")
    if spec.embed_dim not in (None, model.width):
        raise ValueError(f"uve.init_from {spec.init_from} differs in embed_dim: it has {model.width}")
    return model


def _choose_image_size(spec: UveSpec) -> int:
    """Return the side that params say, or that the trunk's weights of timm were trained at."""
    if spec.image_size is not None:
        return spec.image_size
    config = timm.get_pretrained_cfg(spec.trunk, allow_unregistered=True)
    if config is None:
        raise ValueError(f"uve.image_size is null, and {spec.trunk} has no size of its own: name one, as 112")
    size: int = config.input_size[-1]
    return size


def record_uve_source(spec: UveSpec, folder: Path) -> None:
    """Write into the model's directory which public weights of the hub its trunk started from; nothing if none did."""
    if spec.init_from != "timm":
        record_source(spec.init_from, folder)
        return
    config = timm.get_pretrained_cfg(spec.trunk, allow_unregistered=True)
    if config is not None and config.hf_hub_id:
        source = {"repository": config.hf_hub_id, "commit": _find_cached_commit(config.hf_hub_id)}
        write_source(source | {"licence": config.license or LICENCE_UNKNOWN}, folder)


def _find_cached_commit(repository: str) -> str:
    """Return the commit of the weights that timm downloaded, "" where they came another way."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(repository, "model.safetensors")
    return Path(file).parent.name if isinstance(file, str) else ""  # in snapshots/COMMIT


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
