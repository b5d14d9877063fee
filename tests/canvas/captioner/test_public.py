"""Captioners of public classes, tiny, saved by transformers itself; each has learnt its answers by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import processors
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from canvas.captioner.answers import REMINDER, Answer
from canvas.captioner.model import load_captioner, load_public_captioner
from canvas.captioner.spec import CaptioningSpec
from canvas.captioner.training import END, START, train_tokenizer
from components.artifacts import Captioner

PROMPT = "Name the product, then a comma, then where it is."
ASKING = CaptioningSpec(prompt=PROMPT, max_tokens=24)

ANSWERS = [["red mug, in a forest"], ["it is a mug", "blue mug, in a lobby"], ["hm", "what"]]
"""Answers about each image: the first has the form at once, the second when asked again, the third never."""

CAPTIONS = [Answer("red mug, in a forest"), Answer("blue mug, in a lobby", True), Answer("", True)]

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}IMAGE{% else %}{{ item['text'] }}{% endif %}"
    f"{{% endfor %}}{END}{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
)

Made = tuple[torch.nn.Module, Any]


def build_images() -> list[Image.Image]:
    """Three images of different sizes and colours."""
    colors, sizes = [(200, 10, 10), (10, 10, 200), (10, 200, 10)], [(120, 60), (64, 64), (60, 150)]
    return [Image.new("RGB", size, color) for size, color in zip(sizes, colors, strict=True)]


def build_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer that adds nothing to a text, as those of chat models."""
    tokenizer = train_tokenizer([PROMPT, REMINDER, *(text for texts in ANSWERS for text in texts)] * 4, 480)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", *special]})
    return tokenizer


def build_text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def build_idefics3() -> Made:
    """The class of SmolVLM: an image is cut into as many tiles as its shape needs."""
    tokenizer = build_tokenizer("<image>", "<fake_token_around_image>", "<global-img>")
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Idefics3Config(
        text_config=build_text_config(tokenizer) | {"model_type": "llama"},
        vision_config=vision | {"image_size": 32, "patch_size": 8},
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config), processor


def build_qwen2_5_vl() -> Made:
    """An image becomes as many tokens as it has pixels for."""
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    tokenizer = build_tokenizer(*(f"<|{name}|>" for name in names))
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(),
        tokenizer,
        Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    config = Qwen2_5_VLConfig(
        text_config=build_text_config(tokenizer)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}},
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def build_chats() -> list[list[dict[str, Any]]]:
    chats = []
    for image, answers in zip(build_images(), ANSWERS, strict=True):
        chat: list[dict[str, Any]] = []
        for question, answer in zip((PROMPT, REMINDER), answers, strict=False):
            images = [] if chat else [{"type": "image", "image": image}]
            chat.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
            chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        chats.append(chat)
    return chats


def learn(model: torch.nn.Module, inputs: Any, ignored: list[int]) -> None:
    """Learn the texts by heart, each after its image."""
    labels = inputs["input_ids"].masked_fill(torch.isin(inputs["input_ids"], torch.tensor(ignored)), -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(400):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    assert loss < 0.05
    model.eval()


@pytest.fixture(scope="module", params=[build_idefics3, build_qwen2_5_vl], ids=["idefics3", "qwen2.5-vl"])
def chat_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build: Callable[[], Made] = request.param
    torch.manual_seed(0)
    model, processor = build()
    tokenizer = processor.tokenizer
    inputs = processor.apply_chat_template(
        build_chats(),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )
    learn(model, inputs, [tokenizer.pad_token_id, model.config.image_token_id])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    folder = tmp_path_factory.mktemp("hub") / "chat"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def test_images_of_mixed_sizes_are_answered_as_each_alone(chat_model: Path) -> None:
    captioner = load_public_captioner(str(chat_model), ASKING)
    assert captioner.answer(build_images()) == CAPTIONS
    assert [captioner.answer([image])[0] for image in build_images()] == CAPTIONS
    assert captioner.generate_captions(build_images()[::-1]) == [answer.caption for answer in CAPTIONS[::-1]]


def test_chat_model_is_saved_with_its_prompt_and_source(chat_model: Path, tmp_path: Path) -> None:
    load_public_captioner(str(chat_model), ASKING).save(tmp_path / "model")
    again = load_captioner(tmp_path / "model")
    assert again.answer(build_images()) == CAPTIONS
    assert again.model.config.source["licence"] == "apache-2.0"
    assert Captioner.read_sources(tmp_path / "model") == {"model": again.model.config.source}


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that goes on with its prompt; its tokenizer puts a first and a last token, as BERT's does."""
    texts = ["a photo of a red mug in a forest", "a photo of a blue mug", "a photo of blue mug, in a lobby"]
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, 320)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (START, END)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=ends
    )
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = build_text_config(tokenizer) | small | {"encoder_hidden_size": 32, "sep_token_id": tokenizer.eos_token_id}
    config = BlipConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16})
    model = BlipForConditionalGeneration(config)
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    inputs = processor(images=build_images(), text=texts, return_tensors="pt", padding=True)
    learn(model, inputs, [tokenizer.pad_token_id])
    folder = tmp_path_factory.mktemp("hub") / "blip"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_description_after_a_prompt_is_parted_into_product_and_background(blip: Path, tmp_path: Path) -> None:
    captioner = load_public_captioner(str(blip), CaptioningSpec(prompt="a photo of", max_tokens=24))
    captions = ["a red mug, in a forest", "", "blue mug, in a lobby"]
    assert captioner.generate_captions(build_images()) == captions
    captioner.save(tmp_path / "model")
    asking = json.loads((tmp_path / "model" / "asking.json").read_text())
    assert asking == {"prompt": "a photo of", "max_tokens": 24}
    assert load_captioner(tmp_path / "model").generate_captions(build_images()) == captions


def test_public_model_needs_a_prompt(blip: Path) -> None:
    with pytest.raises(ValueError, match="prompt is null, but BlipForConditionalGeneration needs"):
        load_public_captioner(str(blip), CaptioningSpec(prompt=None, max_tokens=5))


def test_half_precision_weights_take_images(chat_model: Path, tmp_path: Path) -> None:
    captioner = load_public_captioner(str(chat_model), ASKING)
    captioner.model.to(torch.bfloat16)
    captioner.save(tmp_path / "model")
    again = load_captioner(tmp_path / "model")
    assert again.model.dtype == torch.bfloat16
    assert len(again.answer(build_images())) == 3


def test_description_does_not_depend_on_the_batch(blip: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    captioner = load_public_captioner(str(blip), CaptioningSpec(prompt="a photo of", max_tokens=24))
    assert captioner.generate_captions([noise])[0] == captioner.generate_captions([noise, *build_images()])[0]
