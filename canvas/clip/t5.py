"""T5's encoder (Raffel et al. 2020), whose states Flux reads in place of those of text-image encoders.

B texts, L tokens, of which there are always as many as the tokenizer allows; D width. As in stock pipelines of Flux
padding is read like a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from canvas.hub import CONFIG_FILES, fetch_snapshot, link_files, link_model, write_source
from canvas.loading import LOADING_LOCK, read_model_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5Config, T5EncoderModel

    from canvas.clip.spec import T5Spec

ARCHITECTURE = "T5EncoderModel"
VOCABULARY_SIZE = 32128  # of the public ones, extra tokens included
SIZES = {"d_model": "width", "num_layers": "layers", "num_heads": "heads", "d_kv": "head_width", "d_ff": "hidden"}
"""Sizes in a config of transformers, by their names in params."""
MAX_CONTEXT = 4096
"""Tokens of a text, above which a tokenizer's limit is none: transformers writes 1e30 where there is no limit."""


@dataclass(frozen=True, slots=True)
class T5Tower:
    """An encoder of transformers with its tokenizer."""

    encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context_length(self) -> int:
        """L."""
        return int(self.tokenizer.model_max_length)

    @property
    def width(self) -> int:
        """D."""
        return int(self.encoder.config.d_model)

    def to(self, device: torch.device) -> T5Tower:
        """Move the encoder; returns it."""
        self.encoder.to(device)
        return self

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Return token ids (B, L) of `texts`; what is too long is cut: see `get_overflow`."""
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        ids: torch.Tensor = tokens["input_ids"].to(self.encoder.device)
        return ids

    def clean_text(self, text: str) -> str:
        """Return `text` as its letters are read: with wide letters and the like resolved, its spaces single."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        return " ".join((text if normalizer is None else normalizer.normalize_str(text)).split()).lower()

    def get_overflow(self, text: str) -> str:
        """Return the end of `text` that does not fit, as it was written, from a whole word on; or ""."""
        return find_t5_overflow(text, self.tokenizer)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (B, L, D)."""
        states: torch.Tensor = self.encoder(tokens, return_dict=False)[0]
        return states


def find_t5_overflow(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the end of `text` that the tokenizer's limit cuts off, as it was written, from a whole word on; or ""."""
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    room = int(tokenizer.model_max_length) - 1  # the end
    if len(places) <= room:
        return ""
    first, _ = places[room]
    return next((text[word.start() :].strip() for word in re.finditer(r"\S+", text) if word.end() > first), "")


def load_linked_t5(spec: T5Spec, folder: Path) -> T5Tower:
    """Load what `link_t5` put into a folder, as the spec says."""
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    return load_t5_tower(folder, folder, context_length=spec.context_length, dtype=dtype)


def build_t5_config(spec: T5Spec) -> T5Config:
    """Return the config of transformers that the spec describes, with the public vocabulary."""
    from transformers import T5Config  # its models take most of a second

    return T5Config(
        vocab_size=VOCABULARY_SIZE,
        d_model=spec.width,
        num_layers=spec.layers,
        num_heads=spec.heads,
        d_kv=spec.head_width,
        d_ff=spec.hidden,
        feed_forward_proj="gated-gelu",
    )


def link_t5(spec: T5Spec, folder: Path) -> None:
    """Put the encoder of `spec.init_from` and its tokenizer as they are into a new folder, and where they came from.

    Raises:
        ValueError: There is none, or it has other sizes than the spec says.
    """
    encoder, tokenizer = (
        fetch_snapshot(spec.init_from, subfolder=f"{part}_2") for part in ("text_encoder", "tokenizer")
    )
    config = read_model_config(encoder.folder)
    if ARCHITECTURE not in config.get("architectures", []):
        raise ValueError(
            f"{spec.init_from} holds no {ARCHITECTURE}: name one, or a pipeline of Flux with text_encoder_2/"
        )
    for name, expected in build_t5_config(spec).to_dict().items():
        if name in SIZES and config[name] != expected:
            raise ValueError(
                f"{spec.init_from} has {name} {config[name]}, the params say {expected}: make text.t5.{SIZES[name]} so"
            )
    link_model(encoder.folder, folder)
    words = [file for pattern in CONFIG_FILES for file in sorted(tokenizer.folder.glob(pattern))]
    link_files((file for file in words if not (folder / file.name).exists()), folder)
    write_source(encoder.describe(), folder)


def load_t5_tower(
    encoder: Path, tokenizer: Path, *, context_length: int | None = None, dtype: torch.dtype = torch.float32
) -> T5Tower:
    """Load an encoder of transformers, in eval mode.

    Args:
        encoder: Directory of a T5EncoderModel, as text_encoder_2 in Flux's.
        tokenizer: Directory of its tokenizer, with tokenizer.json.
        context_length: L; None: as the tokenizer says.
        dtype: Of the weights.

    Raises:
        ValueError: A directory holds none, or nothing says L.
    """
    from transformers import T5EncoderModel, T5TokenizerFast  # its models take most of a second

    try:
        with LOADING_LOCK:
            model = T5EncoderModel.from_pretrained(encoder, use_safetensors=True, trust_remote_code=False, dtype=dtype)
        words = T5TokenizerFast.from_pretrained(tokenizer, trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"{encoder} cannot be loaded as a T5 encoder: {' '.join(str(error).split())}") from None
    if context_length is not None:
        words.model_max_length = context_length
    if words.model_max_length > MAX_CONTEXT:
        raise ValueError(f"{tokenizer} names no model_max_length: write it into its tokenizer_config.json, as 512")
    return T5Tower(model.eval(), words)
