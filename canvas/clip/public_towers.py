"""Text towers as diffusers stores them: transformers' CLIPTextModel, CLIPTextModelWithProjection and T5EncoderModel."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from canvas.clip.model import TEXT_ENCODERS, VOCABULARY_SIZE, TextTower, Tower, convert_text_weights
from canvas.clip.t5 import ARCHITECTURE, load_t5_tower

END_OF_TEXT = "<|endoftext|>"


def load_tower(encoder: Path, tokenizer: Path, dtype: torch.dtype) -> Tower:
    """Return a text encoder of transformers, CLIP's or T5's, with its tokenizer; T5's weights as `dtype`.

    Raises:
        ValueError: As `load_text_tower` and `load_t5_tower` do.
    """
    if _read_architecture(encoder) == ARCHITECTURE:
        return load_t5_tower(encoder, tokenizer, dtype=dtype)
    return load_text_tower(encoder, tokenizer).to(dtype)


def load_text_tower(encoder: Path, tokenizer: Path) -> TextTower:
    """Return a text encoder of transformers as a text tower.

    Args:
        encoder: Directory of the encoder, as text_encoder in a diffusers pipeline's.
        tokenizer: Directory of its CLIPTokenizer; read for what shorter texts are padded with.

    Raises:
        ValueError: It is another class, has another vocabulary than CLIP's, or holds no safetensors.
    """
    import transformers  # its models take most of a second

    name = _read_architecture(encoder)
    if name not in TEXT_ENCODERS:
        raise ValueError(f"{encoder} holds {name}: the text encoder must be one of {', '.join(TEXT_ENCODERS)}")
    try:
        model = getattr(transformers, name).from_pretrained(
            encoder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except OSError as error:
        raise ValueError(f"{encoder} cannot be loaded: {' '.join(str(error).split())}") from None
    config = model.config
    if config.vocab_size != VOCABULARY_SIZE:
        raise ValueError(f"{encoder} has {config.vocab_size} tokens: it must have CLIP's {VOCABULARY_SIZE}")
    weights = convert_text_weights(model)
    # CLIPTextModel has no projection: its pooled text is not read, only the last tower's is.
    weights.setdefault("text_projection", torch.eye(config.hidden_size))
    tower = TextTower(
        embed_dim=weights["text_projection"].shape[1],
        context_length=config.max_position_embeddings,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        quick_gelu=config.hidden_act == "quick_gelu",
        pad_with_end=_read_pad_token(tokenizer) == END_OF_TEXT,
    )
    tower.clip.load_state_dict({name: weights[name] for name in tower.clip.state_dict()})
    return tower.eval()


def _read_architecture(encoder: Path) -> str:
    """Raises ValueError where there is no model."""
    config = encoder / "config.json"
    if not config.is_file():
        raise ValueError(f"{encoder} has no config.json: name a text encoder of transformers")
    return str((json.loads(config.read_text(encoding="utf-8")).get("architectures") or ["nothing known"])[0])


def _read_pad_token(tokenizer: Path) -> str:
    """Raises ValueError where the files do not say."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = tokenizer / name
        if file.is_file() and (token := json.loads(file.read_text(encoding="utf-8")).get("pad_token")) is not None:
            return str(token["content"] if isinstance(token, dict) else token)
    raise ValueError(f"{tokenizer} names no pad_token: name the tokenizer that the text encoder was trained with")
