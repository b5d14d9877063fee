"""The captioner: images in, "{product}, {background}" out.

Any image-text-to-text model of transformers serves, asked with a prompt. The demo's own is a vision encoder-decoder
in the same form: a frozen image encoder, pretrained on ImageNet, and a small decoder trained on captions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    TrOCRForCausalLM,
    TrOCRProcessor,
    VisionEncoderDecoderModel,
    ViTImageProcessor,
)

from canvas.captioner.spec import CaptioningSpec, DecoderSpec
from canvas.features.imagenet import MEAN, STD, Trunk, TrunkConfig, load_pretrained_trunk
from canvas.loading import load_with_processor
from canvas.pins.images import composite_on_white

CAPTIONING_FILE = "asking.json"


class Captioner:
    """A model with its processor and its prompt."""

    def __init__(self, model: PreTrainedModel, processor: Any, asking: CaptioningSpec) -> None:
        self.model = model
        self.processor = processor
        self.asking = asking
        if asking.prompt is None and not isinstance(model, VisionEncoderDecoderModel):
            raise ValueError(f"prompt is null, but {type(model).__name__} needs one that says what to write")
        if asking.prompt is not None and isinstance(model, VisionEncoderDecoderModel):
            raise ValueError(f"prompt is {asking.prompt!r}, but {type(model).__name__} takes none: set it to null")

    @torch.inference_mode()
    def generate_captions(self, images: Sequence[Image.Image]) -> list[str]:
        """Generate a caption of each image, the most probable token at a time; white space made single."""
        inputs = self._prepare_inputs([composite_on_white(image) for image in images]).to(self.model.device)
        tokens = self.model.generate(**inputs, max_new_tokens=self.asking.max_tokens, do_sample=False)
        prompt = inputs.get("input_ids")
        if prompt is not None and torch.equal(tokens[:, : prompt.shape[1]], prompt):
            tokens = tokens[:, prompt.shape[1] :]  # decoder-only models repeat the prompt
        return [" ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def save(self, directory: Path) -> None:
        """Write weights, config, processor and `asking.json`."""
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        (directory / CAPTIONING_FILE).write_text(json.dumps(asdict(self.asking), indent=1) + "\n", encoding="utf-8")

    def _prepare_inputs(self, images: list[Image.Image]) -> Any:
        if self.asking.prompt is None:
            return self.processor(images=images, return_tensors="pt")
        if getattr(self.processor, "chat_template", None):
            text = {"type": "text", "text": self.asking.prompt}
            chats = [[{"role": "user", "content": [{"type": "image", "image": image}, text]}] for image in images]
            return self.processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        return self.processor(images=images, text=[self.asking.prompt] * len(images), return_tensors="pt", padding=True)


def build_captioner(spec: DecoderSpec, tokenizer: PreTrainedTokenizerFast, asking: CaptioningSpec) -> Captioner:
    """Build the demo's captioner: a frozen pretrained trunk, and a decoder with random weights."""
    tokens = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    tokens["decoder_start_token_id"] = tokenizer.bos_token_id
    decoder = TrOCRForCausalLM(
        TrOCRConfig(
            vocab_size=len(tokenizer),
            d_model=spec.width,
            decoder_layers=spec.layers,
            decoder_attention_heads=spec.heads,
            decoder_ffn_dim=4 * spec.width,
            max_position_embeddings=asking.max_tokens + 2,
            dropout=spec.dropout,
            is_decoder=True,
            add_cross_attention=True,
            **tokens,
        )
    )
    _register_trunk()
    model = VisionEncoderDecoderModel(encoder=load_pretrained_trunk(), decoder=decoder)
    for config in (model.config, model.generation_config):
        for name, token in tokens.items():
            setattr(config, name, token)
    size = {"height": spec.image_size, "width": spec.image_size}
    image_processor = ViTImageProcessor(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3)
    return Captioner(model, TrOCRProcessor(image_processor, tokenizer), asking)


def load_captioner(source: str | Path, asking: CaptioningSpec | None = None) -> Captioner:
    """Load the captioner at a path or hub id, in eval mode; `asking` None: as it was saved.

    Raises:
        ValueError: It is no image-text-to-text model of transformers in safetensors.
    """
    _register_trunk()
    model, processor = load_with_processor(AutoModelForImageTextToText, AutoProcessor, source, "image-text-to-text")
    if asking is None:
        asking = CaptioningSpec(**json.loads((Path(source) / CAPTIONING_FILE).read_text(encoding="utf-8")))
    if tokenizer := getattr(processor, "tokenizer", None):
        tokenizer.padding_side = "left"  # so that every caption starts right after its prompt
    return Captioner(model.eval(), processor, asking)


@torch.inference_mode()
def extract_image_features(captioner: Captioner, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return what the demo captioner's decoder reads of each image: float16 [B, 1, 1280]."""
    inputs = captioner.processor(images=[composite_on_white(image) for image in images], return_tensors="pt")
    features = captioner.model.encoder(inputs.pixel_values.to(captioner.model.device)).last_hidden_state
    return features.half().cpu()


def _register_trunk() -> None:
    AutoConfig.register(TrunkConfig.model_type, TrunkConfig, exist_ok=True)
    AutoModel.register(TrunkConfig, Trunk, exist_ok=True)
