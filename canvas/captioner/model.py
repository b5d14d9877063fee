"""The captioner: images in, "{product}, {background}" out.

Any image-text-to-text model of transformers serves, asked with a prompt: chat models, whose answers are checked and
asked for once more, and those that go on with the prompt. The demo's own is a vision encoder-decoder in the same form:
a frozen image encoder, pretrained on ImageNet, and a small decoder trained on captions.
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

from canvas.captioner.answers import REMINDER, Answer, parse_answer, parse_sentence, remove_prompt
from canvas.captioner.spec import CaptioningSpec, DecoderSpec
from canvas.features.imagenet import MEAN, STD, Trunk, TrunkConfig, load_pretrained_trunk
from canvas.hub import fetch_snapshot, write_source
from canvas.loading import load_with_processor
from canvas.pins.images import composite_on_white

CAPTIONING_FILE = "asking.json"

Chat = list[dict[str, Any]]
"""Turns, as the chat templates of transformers take them."""


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
        """Generate a caption of each image, the most probable token at a time; "" where no answer could be used."""
        return [answer.caption for answer in self.answer(images)]

    @torch.inference_mode()
    def answer(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Generate a caption of each image; a chat model whose answer has not the form is asked once more."""
        on_white = [composite_on_white(image) for image in images]
        if self.asking.prompt is None:
            texts = self._decode(self.processor(images=on_white, return_tensors="pt"))
            return [Answer(" ".join(text.split())) for text in texts]
        if not getattr(self.processor, "chat_template", None):
            prompts = [self.asking.prompt] * len(images)
            texts = self._decode(self.processor(images=on_white, text=prompts, return_tensors="pt", padding=True))
            texts = [remove_prompt(text, self.asking.prompt) for text in texts]
            return [Answer(parse_answer(text) or parse_sentence(text) or "") for text in texts]
        chats = [[_build_turn("user", self.asking.prompt, image)] for image in on_white]
        texts = self._chat(chats)
        captions = [parse_answer(text) for text in texts]
        failed = [index for index, caption in enumerate(captions) if caption is None]
        if failed:
            again = [
                [*chats[index], _build_turn("assistant", texts[index]), _build_turn("user", REMINDER)]
                for index in failed
            ]
            for index, text in zip(failed, self._chat(again), strict=True):
                captions[index] = parse_answer(text)
        return [Answer(caption or "", asked_again=index in failed) for index, caption in enumerate(captions)]

    def save(self, directory: Path) -> None:
        """Write weights, config, processor and `asking.json`, and where public weights came from."""
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        (directory / CAPTIONING_FILE).write_text(json.dumps(asdict(self.asking), indent=1) + "\n", encoding="utf-8")
        if (source := getattr(self.model.config, "source", None)) is not None:
            write_source(source, directory)

    def _chat(self, chats: list[Chat]) -> list[str]:
        inputs = self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},  # answers start right after their prompts
        )
        return self._decode(inputs, pad_token_id=self.processor.tokenizer.pad_token_id)

    def _decode(self, inputs: Any, **options: object) -> list[str]:
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=self.asking.max_tokens, do_sample=False, **options)
        prompt = inputs.get("input_ids")
        if prompt is not None and torch.equal(tokens[:, : prompt.shape[1]], prompt):
            tokens = tokens[:, prompt.shape[1] :]  # decoder-only models repeat the prompt
        texts: list[str] = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return texts


def _build_turn(role: str, text: str, image: Image.Image | None = None) -> dict[str, Any]:
    images = [] if image is None else [{"type": "image", "image": image}]
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}


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


def load_captioner(directory: str | Path) -> Captioner:
    """Load the captioner that `Captioner.save` wrote, in eval mode.

    Raises:
        ValueError: The directory holds none.
    """
    model, processor = _load_model(directory)
    asking = CaptioningSpec(**json.loads((Path(directory) / CAPTIONING_FILE).read_text(encoding="utf-8")))
    return Captioner(model, processor, asking)


def load_public_captioner(source: str, asking: CaptioningSpec) -> Captioner:
    """Load a captioner of others as it is, in eval mode; its model's `config.source` says where it came from.

    Args:
        source: A directory, or a hub id as OWNER/NAME@REVISION.
        asking: How it is prompted.

    Raises:
        ValueError: It cannot be fetched, or is no image-text-to-text model of transformers in safetensors.
    """
    snapshot = fetch_snapshot(source)
    model, processor = _load_model(snapshot.folder)
    model.config.source = snapshot.describe()
    return Captioner(model, processor, asking)


def _load_model(folder: str | Path) -> tuple[PreTrainedModel, Any]:
    _register_trunk()
    model, processor = load_with_processor(AutoModelForImageTextToText, AutoProcessor, folder, "image-text-to-text")
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), processor


@torch.inference_mode()
def extract_image_features(captioner: Captioner, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return what the demo captioner's decoder reads of each image: float16 [B, 1, 1280]."""
    inputs = captioner.processor(images=[composite_on_white(image) for image in images], return_tensors="pt")
    features = captioner.model.encoder(inputs.pixel_values.to(captioner.model.device)).last_hidden_state
    return features.half().cpu()


def _register_trunk() -> None:
    AutoConfig.register(TrunkConfig.model_type, TrunkConfig, exist_ok=True)
    AutoModel.register(TrunkConfig, Trunk, exist_ok=True)
