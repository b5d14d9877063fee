"""Training of the demo's captioner: its tokenizer first, then its decoder on image features and caption tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from canvas.captioner.model import Captioner, build_captioner, extract_image_features
from canvas.captioner.spec import CaptionerTrainingSpec
from canvas.device import default_device
from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.train.data import TensorBatches
from canvas.train.draws import Draws
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training, TrainSpec

PAD, START, END = "<pad>", "<s>", "</s>"
IGNORE_INDEX = -100  # label that gives no loss


class CaptionBatch(TypedDict):
    """B images and their captions, of L tokens the longest."""

    pin_id: list[str]
    features: torch.Tensor  # float16 [B, 1, 1280]: see `extract_image_features`
    labels: torch.Tensor  # int64 [B, L], token ids or IGNORE_INDEX


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `vocabulary` tokens, 256 bytes and three special ones among them.

    Texts come back from their tokens exactly, whatever characters they hold. `END` is appended to every text; the
    same captions in the same order give the same tokenizer.

    Raises:
        ValueError: The vocabulary is too small for a word.
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
    captioner: Captioner, pins: Path, captions: Mapping[str, str], rows_at_once: int, spec: TrainSpec
) -> TensorBatches[CaptionBatch]:
    """Load the pins in `captions` (pin_id -> caption), in memory, 2.5 kB each: the frozen encoder sees each once.

    Raises:
        ValueError: There are none.
    """
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
    return TensorBatches(columns, spec.batch_size, spec.seed)


@dataclass(frozen=True, slots=True)
class CaptionObjective:
    """Predict the next token of a caption, given the image's features and the tokens before.

    A fraction `drop` of the features is withheld, at random from each image, and the others are scaled up for it
    (dropout, Srivastava et al. 2014), so that no few of them decide.
    """

    drop: float

    def __call__(
        self, model: nn.Module, batch: CaptionBatch, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features, labels = batch["features"], batch["labels"]
        gain = (draws.uniform(*features.shape) >= self.drop) / (1 - self.drop)
        outputs = model(encoder_outputs=BaseModelOutput(last_hidden_state=features.float() * gain), labels=labels)
        with torch.no_grad():
            accuracy = (outputs.logits.argmax(-1) == labels)[labels >= 0].float().mean()
        return outputs.loss, {"token_accuracy": accuracy}


def fit_captioner(
    params: CaptionerTrainingSpec,
    training: Training,
    pins: Path,
    captions: Mapping[str, str],
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> tuple[Captioner, TrainResult]:
    """Train a captioner from random weights.

    Args:
        params: Of the stage, with `decoder`, `train` and `drop` given.
        training: What all trainings share.
        pins: The table of the images.
        captions: pin_id -> caption, of the pins to train on.
        checkpoints: Directory of the run's states.
        log: Metrics and step, as the loop calls it.

    Returns:
        The captioner, in eval mode, and what the loop returns.

    Raises:
        ValueError: No pin has a caption, or the vocabulary is too small.
    """
    assert params.decoder is not None
    assert params.train is not None
    assert params.drop is not None
    spec = training.resolve(params.train)
    torch.manual_seed(spec.seed)
    tokenizer = train_tokenizer(captions.values(), params.decoder.vocabulary)
    captioner = build_captioner(params.decoder, tokenizer, params.asking)
    captioner.model.to(default_device())
    batches = load_caption_batches(captioner, pins, captions, params.batch_size, spec)
    objective = CaptionObjective(params.drop)
    result = fit(captioner.model, objective, batches, spec, checkpoints=checkpoints, log=log)
    captioner.model.eval()
    return captioner, result
