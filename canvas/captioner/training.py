"""Training of the demo's captioner: its tokenizer first, then its decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from canvas.captioner.model import Captioner, build_captioner
from canvas.captioner.spec import CaptionerTrainingSpec
from canvas.captioner.training_data import CaptionBatch, load_caption_batches, train_tokenizer
from canvas.device import default_device
from canvas.train.draws import Draws
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training


class CaptionObjective:
    """Predict the next token of a caption, given the image's features and the tokens before.

    A fraction `drop` of the features is withheld, at random from each image, and the others are scaled up for it
    (dropout, Srivastava et al. 2014), so that no few of them decide.
    """

    def __init__(self, drop: float) -> None:
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}: give a fraction from 0 to below 1")
        self.drop = drop

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
    """Train a captioner from random weights on `captions` (pin_id -> caption); return it in eval mode."""
    assert params.decoder is not None
    assert params.train is not None
    assert params.drop is not None
    spec = training.resolve(params.train)
    torch.manual_seed(spec.seed)
    tokenizer = train_tokenizer(captions.values(), params.decoder.vocabulary)
    captioner = build_captioner(params.decoder, tokenizer, params.asking)
    captioner.model.to(default_device())
    batches = load_caption_batches(
        captioner, pins, captions, rows_at_once=params.batch_size, batch_size=spec.batch_size, seed=spec.seed
    )
    objective = CaptionObjective(params.drop)
    result = fit(captioner.model, objective, batches, spec, checkpoints=checkpoints, log=log)
    captioner.model.eval()
    return captioner, result
