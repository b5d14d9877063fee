"""Models from directories and the hub: in safetensors only, and those of transformers one at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from diffusers import ModelMixin

M = TypeVar("M", bound="ModelMixin")

LOADING_LOCK = threading.RLock()
"""Held while a worker of the data engine loads, and while `from_pretrained` runs. transformers and diffusers build a
model under switches of the whole process (meta device, no initial weights): what is built on another thread meanwhile,
by whatever library, has no weights, or random ones where they were tied."""


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return the config.json in a directory; {}: it has none."""
    file = folder / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return config


def load_with_processor(
    model_class: Any, processor_class: Any, source: str | Path, task: str, **options: object
) -> tuple[Any, Any]:
    """Load a model of transformers for `task`, and its processor, by path or hub id.

    Args:
        options: Of the model's `from_pretrained`.

    Raises:
        ValueError: `source` holds no such model in safetensors.
    """
    try:
        with LOADING_LOCK:
            model = model_class.from_pretrained(str(source), use_safetensors=True, trust_remote_code=False, **options)
        return model, processor_class.from_pretrained(str(source), trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source} is no {task} model of transformers in safetensors: {reason}") from None


def load_safetensors(model_class: type[M], folder: Path, dtype: torch.dtype | None = None) -> M:
    """Load a model of diffusers by its directory, its weights as `dtype`, None: float32; ValueError if there is none in
    safetensors."""
    try:
        model: M = model_class.from_pretrained(folder, use_safetensors=True, dtype=dtype)
    except OSError as error:
        raise ValueError(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from None
    return model


def load_stage_model(model_class: type[M], path: str | Path, stage: str) -> M:
    """Load the model that `stage` saved in a directory, in eval mode; ValueError if it holds none."""
    if not (Path(path) / "config.json").is_file():
        raise ValueError(f"{path} holds no config.json: name a directory that the {stage} stage wrote")
    model: M = model_class.from_pretrained(str(path), use_safetensors=True)
    return model.eval()


def load_initial_model(model_class: type[M], source: str | Path, config: Mapping[str, object], section: str) -> M:
    """Load the model that training starts from; ValueError if its config is not the one that params `section` say."""
    model = load_stage_model(model_class, source, f"train_{section}")
    check_initial_config(model.config, source, config, section)
    return model


def check_initial_config(
    actual: Mapping[str, object], source: str | Path, config: Mapping[str, object], section: str
) -> None:
    """Raise ValueError if the config of the model at `source` is not the one that params `section` say."""
    values = {name: _convert_to_list(actual[name]) for name in config}
    if different := sorted(name for name in config if values[name] != _convert_to_list(config[name])):
        raise ValueError(f"{section}.init_from {source} differs in {', '.join(different)}: it has {values}")


def _convert_to_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
