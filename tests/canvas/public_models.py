"""Tiny random models of public classes, written by the public libraries themselves, as their repositories hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import tokenizers
import torch
from timm.models import save_for_hf
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

SIDE = 32
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": SIDE, "patch_size": 8}
WORDS = ("a", "mug", "lamp", ",", "in", "on", "the", "forest", "beach", "city")
T5_TOKENS = 24
MEAN, STD = [0.48, 0.45, 0.4], [0.26, 0.25, 0.27]
"""Normalization of CLIP's kind: unlike 0.5, so that the wrong ones would show."""


def write_clip(folder: Path, *, logit_scale: float = 2.6, seed: int = 0, **options: Any) -> CLIPModel:
    """CLIPModel with tokenizer and image processor; PickScore is one whose logit scale was tuned."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {name: number for number, name in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    ends = {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    text = {**SMALL, "vocab_size": len(vocabulary) + 2, "max_position_embeddings": 24}
    text |= {"bos_token_id": ends["<|startoftext|>"], "eos_token_id": ends["<|endoftext|>"]}
    config = CLIPConfig(
        text_config=text,
        vision_config={**VISION, "projection_dim": 24},
        projection_dim=24,
        logit_scale_init_value=logit_scale,
    )
    torch.manual_seed(seed)
    model = spread_weights(CLIPModel(config))
    model.save_pretrained(folder, **options)
    CLIPTokenizer(vocab=vocabulary | ends, merges=[], model_max_length=24).save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    crop = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(size=size, crop_size=crop, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return model


def write_siglip(folder: Path) -> SiglipModel:
    """SiglipModel with image processor; its tokenizer is a tokenizer.json, as sentencepiece is not at hand."""
    vocabulary = {word: number for number, word in enumerate(("</s>", "<unk>", *WORDS))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    text = {**SMALL, "vocab_size": len(vocabulary), "max_position_embeddings": 16}
    text |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    model = spread_weights(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)))
    torch.nn.init.constant_(model.logit_scale, 2.0)
    torch.nn.init.constant_(model.logit_bias, -3.0)
    model.save_pretrained(folder)
    tokens = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **tokens).save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model


def build_t5(width: int = 48) -> tuple[T5EncoderModel, T5TokenizerFast]:
    """T5EncoderModel of the kind that Flux reads, with a tokenizer that knows WORDS whole and letters apart."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(character, -9.0) for character in ["▁", *map(chr, range(33, 127))] if character not in WORDS]
    words = [(word, -3.0) for word in WORDS] + [(f"▁{word}", -2.0) for word in WORDS]
    tokenizer = T5TokenizerFast(vocab=[*special, *letters, *words], extra_ids=0, model_max_length=T5_TOKENS)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval(), tokenizer


def write_dinov2(folder: Path) -> Dinov2Model:
    """Dinov2Model of transformers, trained at another size than its processor's, as the public ones."""
    torch.manual_seed(0)
    config = Dinov2Config(**{**VISION, "image_size": 56}, mlp_ratio=2)
    model = spread_weights(Dinov2Model(config))
    model.save_pretrained(folder)
    crop = {"height": SIDE, "width": SIDE}
    BitImageProcessor(size={"shortest_edge": SIDE}, crop_size=crop, image_mean=MEAN, image_std=STD).save_pretrained(
        folder
    )
    return model


def write_timm(folder: Path, architecture: str, **changes: Any) -> torch.nn.Module:
    """A small model of timm in the layout of its hub repositories, normalised by MEAN and STD."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, **changes}
    overlay = {"mean": tuple(MEAN), "std": tuple(STD)}
    model = timm.create_model(architecture, num_classes=0, pretrained_cfg_overlay=overlay, **sizes)
    spread_weights(model)
    save_for_hf(model, folder, safe_serialization=True)
    return model.eval()


def spread_weights(model: torch.nn.Module) -> Any:
    """Enlarge random weights: as they are, every image and text would look nearly the same."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(1 if "position" in name or "pos_embed" in name else 4)
    return model.eval()
