"""Tiny safety models of real classes, random, saved by transformers itself as a repository holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mug", "in", "a", "forest", "with", "bomb", ",")
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def write_prompt_classifier(folder: Path, labels: tuple[str, ...] = ("safe", "unsafe"), **config: Any) -> Path:
    """A BERT whose texts differ in their scores, as its weights are large."""
    torch.manual_seed(1)
    names = dict(enumerate(labels))
    shape = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 32, "initializer_range": 1.0}
    network = BertForSequenceClassification(BertConfig(**shape | {"id2label": names} | config))
    _write(network, folder)
    BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def write_image_classifier(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw")) -> Path:
    """A ViT of 16 x 16 pixels."""
    torch.manual_seed(2)
    names = dict(enumerate(labels))
    network = ViTForImageClassification(
        ViTConfig(**SIZES, image_size=16, patch_size=8, id2label=names, initializer_range=0.5)
    )
    _write(network, folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def write_safety_checker(folder: Path, resized: int = 16) -> Path:
    """Stable Diffusion's own class, with random concepts and limits that some images exceed; its processor crops 16
    pixels out of `resized`."""
    torch.manual_seed(3)
    vision = CLIPVisionConfig(**SIZES, image_size=16, patch_size=8).to_dict()
    text = CLIPTextConfig(**SIZES, vocab_size=16).to_dict()
    network = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))
    for embeddings in (network.concept_embeds, network.special_care_embeds):
        torch.nn.init.normal_(embeddings)
    torch.nn.init.constant_(network.concept_embeds_weights, 0.5)
    torch.nn.init.constant_(network.special_care_embeds_weights, 0.3)
    _write(network, folder)
    CLIPImageProcessor(size={"shortest_edge": resized}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def _write(network: PreTrainedModel, folder: Path) -> None:
    network.save_pretrained(folder)
