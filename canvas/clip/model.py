"""Text-image encoders (open_clip) and what the denoiser takes from their text towers.

As in SDXL (Podell et al. 2023, section 2.1) the denoiser sees the hidden states before the last block of every tower,
side by side, and the projected pooled text of the last tower. Beside a T5, as in Flux, it sees T5's states alone, and
pooled text without a projection. Shapes: B texts, L tokens, D summed widths, P width of the pooled text.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import open_clip
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from canvas.clip.spec import ClipSpec, TextSpec
from canvas.clip.t5 import T5Tower
from canvas.features.perceptual import ClipFeatures, FeatureDistance
from canvas.hub import LICENCE_UNKNOWN, Snapshot, fetch_snapshot, write_source

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

HUB_PREFIX = "hf-hub:"
"""May stand before a hub id, as open_clip has it."""
T5_FOLDER = "t5"
"""Beside both encoders, where there is a T5."""
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection")
"""Classes of transformers: those of SDXL, in text_encoder and text_encoder_2 of its directory."""
OPEN_CLIP_NAMES = {  # by those of transformers; see also `convert_text_weights`
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
}
MAX_QUOTED = 60  # characters of a prompt in a message
VOCABULARY_SIZE = 49408  # of CLIP's byte-pair encoding, which open_clip ships


def build_clip_config(spec: ClipSpec) -> dict[str, Any]:
    """Return open_clip's model config of `spec`."""
    return {
        "embed_dim": spec.embed_dim,
        "quick_gelu": spec.quick_gelu,
        "vision_cfg": {
            "image_size": spec.image_size,
            "layers": spec.vision_layers,
            "width": spec.vision_width,
            "head_width": spec.vision_head_width,
            "mlp_ratio": spec.vision_mlp_ratio,
            "patch_size": spec.patch_size,
            "patch_dropout": spec.vision_patch_dropout,
        },
        "text_cfg": {
            "context_length": spec.context_length,
            "vocab_size": VOCABULARY_SIZE,
            "width": spec.text_width,
            "heads": spec.text_heads,
            "layers": spec.text_layers,
        },
    }


def build_clip(spec: ClipSpec) -> open_clip.CLIP:
    """Build the text-image encoder of `spec`, random or from `spec.init_from`.

    Warns if that is a text encoder of transformers, which has no image tower. Raises ValueError if the weights are of
    another architecture than the spec says, or cannot be found.
    """
    if spec.init_from is None:
        clip = open_clip.CLIP(**build_clip_config(spec))
        set_preprocessing(clip, spec.image_size)
        return clip
    if is_text_encoder(spec.init_from):
        return _build_from_text_encoder(spec.init_from, spec)
    clip = load_clip(spec.init_from, patch_dropout=spec.vision_patch_dropout)
    with torch.device("meta"):
        expected = open_clip.CLIP(**build_clip_config(spec)).state_dict()
    _check_shapes(clip.state_dict(), expected, spec.init_from)
    return clip


def set_preprocessing(clip: open_clip.CLIP, image_size: int, **statistics: tuple[float, ...]) -> None:
    """Set the size, and the `mean` and `std` (unset: open_clip's), that the encoder's images are prepared with."""
    preprocess = open_clip.transform.PreprocessCfg(size=(image_size, image_size), **statistics)
    open_clip.model.set_model_preprocess_cfg(clip, preprocess.__dict__)


def _check_shapes(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], source: str) -> None:
    for name in sorted(expected.keys() | actual.keys()):
        shape, needed = (list(weights[name].shape) if name in weights else "none" for weights in (actual, expected))
        if shape != needed:
            raise ValueError(f"{source!r} has {name} {shape}, the params say {needed}: make the clip section agree")


def is_text_encoder(source: str) -> bool:
    """Whether `source` is transformers' text encoder, as text_encoder in a diffusers pipeline's directory."""
    config = None if _is_tag(source) else _fetch(source).folder / "config.json"
    return config is not None and config.is_file() and _read_architecture(config) in TEXT_ENCODERS


def _is_tag(source: str) -> bool:
    """Whether it is NAME:TAG of open_clip, and neither a directory nor a hub id."""
    return ":" in source.removeprefix(HUB_PREFIX) and not Path(source).is_dir()


def _fetch(source: str) -> Snapshot:
    return fetch_snapshot(source.removeprefix(HUB_PREFIX))


def _read_architecture(config: Path) -> str:
    return (json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""])[0]


def _build_from_text_encoder(source: str, spec: ClipSpec) -> open_clip.CLIP:
    """Build an encoder of `spec` with that text tower; the image tower is random, as is a projection that it lacks."""
    import transformers  # its models take most of a second

    folder = _fetch(source).folder
    encoder = getattr(transformers, _read_architecture(folder / "config.json")).from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False
    )
    config = encoder.config
    actual = {"text_heads": config.num_attention_heads, "quick_gelu": config.hidden_act == "quick_gelu"}
    for name, value in actual.items():
        if value != getattr(spec, name):
            raise ValueError(f"{source!r} has {name} {value}, the params say {getattr(spec, name)}: make them agree")
    warnings.warn(f"{source} has no image tower: it is random, train it before images are read", stacklevel=3)
    clip = build_clip(dataclasses.replace(spec, init_from=None))
    weights = convert_text_weights(encoder)
    text_weights = {
        name: weight for name, weight in clip.state_dict().items() if not name.startswith(("visual.", "logit_"))
    }
    if "text_projection" not in weights:
        del text_weights["text_projection"]  # stays random
    _check_shapes(weights, text_weights, source)
    clip.load_state_dict(weights, strict=False)
    return clip


def convert_text_weights(encoder: CLIPTextModel | CLIPTextModelWithProjection) -> dict[str, torch.Tensor]:
    """Convert the weights of transformers' text encoder to open_clip's format. Queries, keys and values are one matrix
    there, and the projection is transposed."""
    source = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    for name in [name for name in source if ".q_proj." in name]:
        parts = [source.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        source[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    weights = {}
    for name, weight in source.items():
        for theirs, ours in OPEN_CLIP_NAMES.items():
            name = name.replace(theirs, ours)
        weights[name] = weight.T if name == "text_projection" else weight
    return weights


def load_clip(source: str | Path, *, patch_dropout: float | None = None) -> open_clip.CLIP:
    """Load a text-image encoder.

    Args:
        source: Directory, hub id or "NAME:TAG" of `open_clip.list_pretrained()`.
        patch_dropout: Share of the patches that training hides; None: as its config says.

    Raises:
        ValueError: `source` is none of these, or holds no safetensors.
    """
    text = str(source)
    if not _is_tag(text):
        folder = _fetch(text).folder
        if not any(folder.glob("*.safetensors")):
            raise ValueError(f"{text} holds no safetensors: name a model of open_clip whose weights are stored so")
        return open_clip.create_model(f"local-dir:{folder}", force_patch_dropout=patch_dropout)
    name, _, tag = text.partition(":")
    if (name, tag) not in open_clip.list_pretrained():
        raise ValueError(
            f"clip.init_from {text!r} is neither a directory, nor a hub id, nor NAME:TAG of open_clip, such as "
            "ViT-bigG-14:laion2b_s39b_b160k"
        )
    return open_clip.create_model(name, pretrained=tag, force_patch_dropout=patch_dropout)


def load_feature_distance(source: Path, layers: Sequence[int]) -> FeatureDistance:
    """Load the perceptual distance of an encoder's image tower: feature maps after its blocks `layers`."""
    return FeatureDistance(ClipFeatures(load_clip(source), layers))


def save_clip(clip: open_clip.CLIP, spec: ClipSpec, directory: Path) -> None:
    """Write the encoder so that `open_clip.create_model("local-dir:DIRECTORY")` loads it, and where it came from."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": build_clip_config(spec), "preprocess_cfg": dict(clip.visual.preprocess_cfg)}
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: weight.contiguous() for name, weight in clip.state_dict().items()}, directory / WEIGHTS_FILE)
    if spec.init_from is not None:
        tag = Snapshot(repository=f"open_clip {spec.init_from}", folder=directory, commit="", licence=LICENCE_UNKNOWN)
        write_source((tag if _is_tag(spec.init_from) else _fetch(spec.init_from)).describe(), directory)


class TextTower(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The text half of an open_clip encoder, with its tokenizer, as a part of a diffusers pipeline."""

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
    ) -> None:
        super().__init__()
        clip = open_clip.CLIP(
            embed_dim=embed_dim,
            quick_gelu=quick_gelu,
            vision_cfg={"image_size": 1, "layers": 1, "width": 1, "head_width": 1, "patch_size": 1},
            text_cfg={
                "context_length": context_length,
                "vocab_size": VOCABULARY_SIZE,
                "width": width,
                "heads": heads,
                "layers": layers,
            },
        )
        del clip.visual, clip.logit_scale
        clip.logit_scale = None
        self.clip = clip
        self.tokenizer = SimpleTokenizer(context_length=context_length)

    @classmethod
    def from_clip(cls, clip: open_clip.CLIP, spec: ClipSpec, *, project: bool = True) -> TextTower:
        """Build the text tower of `clip`, with a copy of its weights; `project` False: its pooled text stays as it is
        before the projection, as Flux reads it."""
        sizes = build_clip_config(spec)["text_cfg"]
        del sizes["vocab_size"]  # the same for all
        embed_dim = spec.embed_dim if project else spec.text_width
        tower = cls(embed_dim=embed_dim, quick_gelu=spec.quick_gelu, pad_with_end=spec.pad_with_end, **sizes)
        weights = clip.state_dict()
        if not project:
            weights["text_projection"] = torch.eye(embed_dim)
        tower.clip.load_state_dict({name: weights[name] for name in tower.clip.state_dict()})
        return tower.eval()

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Return token ids (B, L) of `texts`; what is too long is cut: see `get_overflow`."""
        ids = self.tokenizer(list(texts))
        if self.config["pad_with_end"]:
            after = torch.cumsum(ids == self.tokenizer.eot_token_id, dim=1) > 0
            ids = torch.where(after, self.tokenizer.eot_token_id, ids)
        return ids.to(self.device)

    def clean_text(self, text: str) -> str:
        """Return `text` as its letters are read: in lower case, with HTML entities, wide letters and broken encodings
        resolved."""
        return str(self.tokenizer.clean_fn(text))

    def get_overflow(self, text: str) -> str:
        """Return the end of `text` that does not fit, as it was written, from a whole word on; or ""."""
        return find_overflow(text, self.config["context_length"], self.tokenizer)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states before the last block (B, L, width) and the projected pooled text (B, embed_dim)."""
        outputs = self.clip.forward_intermediates(text=tokens, text_indices=[-2], normalize=False)
        return outputs["text_intermediates"][0], outputs["text_features"]


def find_overflow(text: str, context_length: int, tokenizer: SimpleTokenizer) -> str:
    """Return the end of `text` that does not fit, as it was written, from a whole word on; or ""."""
    room = context_length - 2  # start and end
    if len(tokenizer.encode(text)) <= room:
        return ""
    last = text
    for word in re.finditer(r"\S+", text):
        last = text[word.start() :].strip()
        room -= len(tokenizer.encode(word.group()))
        if room < 0:
            break
    return last


def check_overflow(name: str, cut: str) -> None:
    """Raise ValueError, which calls the text `name`, if it has an end `cut` that text towers have no room for."""
    if cut:
        cut = cut if len(cut) <= MAX_QUOTED else f"{cut[:MAX_QUOTED]}..."
        raise ValueError(f"the {name} is too long, its end would be cut off: {cut!r}; shorten it")


Tower: TypeAlias = TextTower | T5Tower
"""What reads prompts."""


@torch.no_grad()
def encode_prompts(towers: Sequence[Tower], texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return text states (B, L, D) and pooled text (B, P).

    States are T5's, if it is among the towers, or else those of all towers side by side; the pooled text is that of the
    last text-image encoder. Raises ValueError if the contexts of states side by side differ.
    """
    clips = [tower for tower in towers if isinstance(tower, TextTower)]
    if t5 := find_t5(towers):
        return t5(t5.tokenize(texts)), clips[-1](clips[-1].tokenize(texts))[1]
    lengths = [tower.config["context_length"] for tower in clips]
    if len(set(lengths)) != 1:
        raise ValueError(
            f"text towers have context lengths {lengths}: their states stand side by side, make them equal"
        )
    outputs = [tower(tower.tokenize(texts)) for tower in clips]
    return torch.cat([states for states, _ in outputs], dim=-1), outputs[-1][1]


def find_t5(towers: Sequence[Tower]) -> T5Tower | None:
    """Return the T5 among the towers, or None."""
    return next((tower for tower in towers if isinstance(tower, T5Tower)), None)


def name_components(towers: tuple[TextTower, Tower]) -> dict[str, Any]:
    """Return the towers' parts by their names in a pipeline."""
    first, second = towers
    if isinstance(second, TextTower):
        return {"text_encoder": first, "text_encoder_2": second}
    return {"text_encoder": first, "text_encoder_2": second.encoder, "tokenizer_2": second.tokenizer}


def get_overflow(towers: Sequence[Tower], text: str) -> str:
    """Return the end of `text` that no state is of, from a whole word on, or "". Pooled text may be of its start."""
    t5 = find_t5(towers)
    return next((cut for tower in ([t5] if t5 else towers) if (cut := tower.get_overflow(text))), "")


def measure_text_widths(towers: Sequence[Tower]) -> tuple[int, int]:
    """Return (D, P) of what `encode_prompts` makes."""
    clips = [tower.config for tower in towers if isinstance(tower, TextTower)]
    t5 = find_t5(towers)
    return t5.width if t5 else sum(config["width"] for config in clips), clips[-1]["embed_dim"]


def compute_text_widths(text: TextSpec) -> tuple[int, int]:
    """Return (D, P), which the denoiser is built for."""
    if text.t5 is not None:
        return text.t5.width, text.first.text_width
    return text.first.text_width + text.second.text_width, text.second.embed_dim
