"""Supervision of the captioner: its tokenizer, image features of pins, and the tokens of their captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from canvas.captioner.model import Captioner, extract_image_features
from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.train.data import TensorBatches

PAD, START, END = "<pad>", "<s>", "</s>"

IGNORE_INDEX = -100
"""Label that gives no loss."""


class CaptionBatch(TypedDict):
    """B images and their captions, of L tokens the longest."""

    pin_id: list[str]
    features: torch.Tensor  # float16 [B, 1, 1280]: see `extract_image_features`
    labels: torch.Tensor  # int64 [B, L], token ids or IGNORE_INDEX


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `vocabulary` tokens, 256 bytes and three special ones among them.

    Texts come back from their tokens exactly, whatever characters they hold. `END` is appended to every text; the
    same captions in the same order give the same tokenizer.
    """
    if vocabulary < 300:
        raise ValueError(f"vocabulary is {vocabulary}: 259 tokens are taken before the first word, so give 300 or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END)


def load_caption_batches(
    captioner: Captioner,
    pins: Path,
    captions: Mapping[str, str],
    *,
    rows_at_once: int,
    batch_size: int,
    seed: int,
) -> TensorBatches[CaptionBatch]:
    """Load the pins in `captions` (pin_id -> caption), in memory, 2.5 kB each: the frozen encoder sees each once."""
    ids, features = [], []
    with tqdm(total=len(captions), desc="image features", unit="pin") as bar:
        for rows in tables.select_batches(pins, ["image"], captions, rows_at_once):
            ids += [row["pin_id"] for row in rows]
            features.append(extract_image_features(captioner, [decode_image(row["image"]) for row in rows]))
            bar.update(len(rows))
    if not ids:
        raise ValueError("no pin of the train split has a caption: name a captioner in train_captioner.init_from")
    tokens = captioner.processor.tokenizer(
        [captions[pin_id] for pin_id in ids],
        padding=True,
        truncation=True,
        max_length=captioner.asking.max_tokens,
        return_tensors="pt",
    )
    labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, IGNORE_INDEX)
    columns: CaptionBatch = {"pin_id": ids, "features": torch.cat(features), "labels": labels}
    return TensorBatches(columns, batch_size, seed)
