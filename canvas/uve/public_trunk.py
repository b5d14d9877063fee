"""Trunks of public weights: directories, or repositories of the hub, as timm and transformers save them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from canvas.features.transformers_trunk import NAME as TRANSFORMERS
from canvas.features.transformers_trunk import TOWER_CLASSES
from canvas.loading import load_with_processor, read_model_config
from canvas.uve.spec import UveSpec

TOWER_OF_MODEL = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Text-image model -> its image half, which is read."""

BUILD_ERRORS = (TypeError, RuntimeError, ValueError, AssertionError, AttributeError, ArithmeticError, LookupError)
"""What libraries raise for arguments that make no network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicTrunk:
    """A trunk with its weights, and how it is built again."""

    args: dict[str, Any]  # of timm.create_model
    image_size: int  # its own, in pixels
    weights: Mapping[str, torch.Tensor]


def load_public_trunk(spec: UveSpec, folder: Path) -> PublicTrunk:
    """Load the trunk in `folder`, to which `spec.init_from` was resolved.

    Raises:
        ValueError: It holds no model of timm or transformers, another than `spec.trunk`, or not all of its weights.
    """
    config = read_model_config(folder)
    name = config.get("architecture") or (TRANSFORMERS if "model_type" in config else None)
    if name is None:
        raise ValueError(
            f"uve.init_from {spec.init_from} holds neither an embedding that train_uve wrote nor a model of timm or "
            "transformers: name another"
        )
    if name != spec.trunk.partition(".")[0]:
        raise ValueError(f"uve.init_from {spec.init_from} holds {name}, not {spec.trunk}: set uve.trunk to {name}")
    return _load_tower(spec, folder) if name == TRANSFORMERS else _load_timm(spec, folder, config)


def _load_timm(spec: UveSpec, folder: Path, config: Mapping[str, Any]) -> PublicTrunk:
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"uve.init_from {spec.init_from} holds no model.safetensors: name weights that are stored so")
    pretrained = config.get("pretrained_cfg", config)  # older repositories have one level
    args = {key: value for key, value in config.get("model_args", {}).items() if key not in ("img_size", "num_classes")}
    size = spec.image_size or pretrained["input_size"][-1]
    changes: dict[str, Any] = {**({"img_size": size} if pretrained.get("fixed_input_size") else {}), **spec.trunk_args}
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **changes)
    except BUILD_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"uve.init_from {spec.init_from} cannot be loaded with {spec.trunk_args}: {reason}") from None
    normalisation = {name: list(pretrained[name]) for name in ("mean", "std")}
    args |= {**spec.trunk_args, "pretrained_cfg_overlay": normalisation}
    return PublicTrunk(args=args, image_size=size, weights=network.state_dict())


def _load_tower(spec: UveSpec, folder: Path) -> PublicTrunk:
    import transformers

    if spec.trunk_args:
        raise ValueError(f"uve.trunk_args are {spec.trunk_args}: set them to {{}}, a model of transformers has its own")
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = TOWER_OF_MODEL.get(config.model_type, config.model_type)
    if kind not in TOWER_CLASSES:
        types = ", ".join([*TOWER_OF_MODEL, *TOWER_CLASSES])
        raise ValueError(f"uve.init_from {spec.init_from} is of type {kind}, which is not known: use one of {types}")
    tower_config = config
    if kind != config.model_type:
        tower_config = config.vision_config
        if kind == "clip_vision_model":
            tower_config.projection_dim = config.projection_dim
    (tower, loading), processor = load_with_processor(
        getattr(transformers, TOWER_CLASSES[kind]),
        transformers.AutoImageProcessor,
        folder,
        "embedding",
        config=tower_config,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"uve.init_from {spec.init_from} lacks {len(missing)} weights, as {missing[0]}: name another")
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    args = {"config": tower_config.to_dict(), "mean": processor.image_mean, "std": processor.image_std}
    return PublicTrunk(
        args=json.loads(json.dumps(args)),
        image_size=spec.image_size or crop.get("height") or crop["shortest_edge"],
        weights={f"tower.{name}": weight for name, weight in tower.state_dict().items()},
    )
