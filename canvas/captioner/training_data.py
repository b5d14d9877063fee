"""Supervision of the captioner: image features of pins, and the tokens of their captions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from canvas.captioner.model import Captioner, extract_image_features
from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.train.data import Batch, TensorBatches

IGNORE_INDEX = -100
"""Label that gives no loss."""


def load_caption_batches(
    captioner: Captioner,
    pins: Path,
    captions: Mapping[str, str],
    *,
    rows_at_once: int,
    batch_size: int,
    seed: int,
) -> TensorBatches:
    """Columns `features`, float16 [N, 1, 1280], and `labels`, int64 [N, longest caption], of the pins in
    `captions`. In memory (2.5 kB a pin), because the encoder stays as it is: each picture passes once."""
    ids, features = [], []
    with tqdm(total=len(captions), desc="image features", unit="pin") as bar:
        for rows in tables.select_batches(pins, ["image"], captions, rows_at_once):
            ids += [row["pin_id"] for row in rows]
            features.append(extract_image_features(captioner, [decode_image(row["image"]) for row in rows]))
            bar.update(len(rows))
    if not ids:
        raise ValueError("no pin of the train split has a caption: name a captioner in train_captioner.init_from")
    columns: Batch = {
        "pin_id": ids,
        "features": torch.cat(features),
        "labels": _tokenize_captions(
            captioner.processor.tokenizer, [captions[pin_id] for pin_id in ids], captioner.asking.max_tokens
        ),
    }
    return TensorBatches(columns, batch_size, seed)


def _tokenize_captions(tokenizer: PreTrainedTokenizerFast, captions: list[str], longest: int) -> torch.Tensor:
    tokens = tokenizer(captions, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return tokens.input_ids.masked_fill(tokens.attention_mask == 0, IGNORE_INDEX)
