"""The text encoders that a generator reads: stage train_text's directory, and towers loaded from it.

It is train_clip's, first/, second/ and t5/, with what was tuned in their place, and TUNING_FILE beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from diffusers import ModelMixin  # noqa: F401  # diffusers looks for the base of a part's class in its module
from diffusers.configuration_utils import register_to_config

from canvas.clip.model import CONFIG_FILE, T5_FOLDER, WEIGHTS_FILE, TextTower, Tower, build_clip_config, load_clip
from canvas.clip.spec import ClipSpec, TextSpec
from canvas.clip.t5 import load_linked_t5
from canvas.hub import link_files

TUNING_FILE = "tuning.json"
"""Beside a tuned encoder: the widths at which its embeddings may be cut, and the mix of layers."""


class MixedTextTower(TextTower):
    """A text tower whose hidden states are a weighted sum of those after every block."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        embed_dim: int,
        context_length: int,
        width: int,
        heads: int,
        layers: int,
        quick_gelu: bool,
        pad_with_end: bool,
        layer_weights: Sequence[float],
    ) -> None:
        super().__init__(embed_dim, context_length, width, heads, layers, quick_gelu, pad_with_end)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed hidden states (B, L, width) and the projected pooled text (B, embed_dim)."""
        layers, pooled = compute_layers(self.clip, tokens)
        return mix_layers(layers, torch.tensor(self.config["layer_weights"], device=tokens.device)), pooled


def compute_layers(clip: open_clip.CLIP, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states after every block, (N, B, L, width), and the projected pooled text (B, embed_dim)."""
    outputs = clip.forward_intermediates(text=tokens, normalize=False)
    return torch.stack(outputs["text_intermediates"]), outputs["text_features"]


def mix_layers(layers: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum (B, L, width) of layers (N, B, L, width) times weights (N,)."""
    return torch.einsum("n,nblw->blw", weights.to(layers.dtype), layers)


def build_first_weights(layers: int) -> torch.Tensor:
    """Return the weights of the mix that is the states before the last block, which a denoiser reads of a tower that
    was not tuned."""
    weights = torch.zeros(layers)
    weights[-2] = 1
    return weights


def write_tuning(folder: Path, widths: Sequence[int], layer_weights: Sequence[float] | None) -> None:
    """Write TUNING_FILE; `layer_weights` None: the denoiser reads the states before the last block."""
    values = {"widths": list(widths), "layer_weights": None if layer_weights is None else list(layer_weights)}
    (folder / TUNING_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_layer_weights(folder: Path) -> list[float] | None:
    """Return the mix of an encoder's directory; None: there is none."""
    file = folder / TUNING_FILE
    weights = json.loads(file.read_text(encoding="utf-8"))["layer_weights"] if file.is_file() else None
    return None if weights is None else [float(weight) for weight in weights]


def load_text_tower(folder: Path, spec: ClipSpec, *, project: bool = True) -> TextTower:
    """Load the text half of an encoder's directory, with its mix of layers; `project` as in `TextTower.from_clip`."""
    tower = TextTower.from_clip(load_clip(folder), spec, project=project)
    weights = read_layer_weights(folder)
    return tower if weights is None else build_mixed_tower(tower, weights)


def build_mixed_tower(tower: TextTower, layer_weights: Sequence[float]) -> MixedTextTower:
    """Return a tower of the same weights that mixes its layers.

    Raises:
        ValueError: There is not one weight for each block.
    """
    sizes = {name: value for name, value in tower.config.items() if not name.startswith("_")}
    if len(layer_weights) != sizes["layers"]:
        raise ValueError(
            f"the mix has {len(layer_weights)} layer weights, the text tower {sizes['layers']} blocks: train it anew"
        )
    mixed = MixedTextTower(**sizes, layer_weights=list(layer_weights))
    mixed.clip.load_state_dict(tower.clip.state_dict())
    return mixed.eval()


def load_towers(folder: Path, text: TextSpec) -> tuple[TextTower, Tower]:
    """Load what reads prompts from the directory of stage train_text, or of train_clip."""
    if text.t5 is None:
        return load_text_tower(folder / "first", text.first), load_text_tower(folder / "second", text.second)
    return load_text_tower(folder / "first", text.first, project=False), load_linked_t5(text.t5, folder / T5_FOLDER)


def link_encoders(source: Path, target: Path, *, without: Sequence[str] = ()) -> Counter[str]:
    """Put the encoders of a directory, but those in `without`, into another by hard links or copies; count which.

    Raises:
        ValueError: The directory is none of stage train_text or train_clip.
    """
    for name in ("first", "second"):
        if not ((source / name / CONFIG_FILE).is_file() and (source / name / WEIGHTS_FILE).is_file()):
            raise ValueError(
                f"{source} holds no {name}/ with {CONFIG_FILE} and {WEIGHTS_FILE}: name a directory that train_text "
                "or train_clip wrote"
            )
    counts = Counter(linked_files=0, copied_files=0)
    for name in ("first", "second", T5_FOLDER):
        if (source / name).is_dir() and name not in without:
            counts.update(link_files(sorted((source / name).iterdir()), target / name))  # `+=` would drop zeros
    return counts


def check_sizes(folder: Path, text: TextSpec) -> None:
    """Raise ValueError if an encoder in the directory has other sizes than the params say."""
    for name, spec in (("first", text.first), ("second", text.second)):
        actual = json.loads((folder / name / CONFIG_FILE).read_text(encoding="utf-8"))["model_cfg"]
        expected = build_clip_config(spec)
        if actual["embed_dim"] != expected["embed_dim"] or actual["text_cfg"] != expected["text_cfg"]:
            raise ValueError(
                f"{folder}/{name} has embed_dim {actual['embed_dim']} and text tower {actual['text_cfg']}, text.{name} "
                f"says {expected['embed_dim']} and {expected['text_cfg']}: make them agree"
            )
