"""Training of the demo's captioner: its tokenizer first, then its decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from canvas.captioner.model import Captioner, build_captioner
from canvas.captioner.objective import CaptionObjective
from canvas.captioner.spec import CaptionerTrainingSpec
from canvas.captioner.tokenizer import train_tokenizer
from canvas.captioner.training_data import load_caption_batches
from canvas.device import default_device
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training


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
