"""What the captioner learns: the next token of a caption, given the picture's features and the tokens before."""

from __future__ import annotations

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from canvas.train.data import Batch
from canvas.train.draws import Draws


class CaptionObjective:
    """Objective of the training loop for batches with `features` [B, tokens, width] and `labels` int64 [B, L].

    A fraction `drop` of the features is withheld, at random from each picture, and the others are scaled up for it
    (dropout, Srivastava et al. 2014), so that no few of them decide.
    """

    def __init__(self, drop: float) -> None:
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}: give a fraction from 0 to below 1")
        self.drop = drop

    def __call__(self, model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features, labels = batch["features"], batch["labels"]
        assert isinstance(features, torch.Tensor)
        assert isinstance(labels, torch.Tensor)
        seen = (draws.uniform(*features.shape) >= self.drop) / (1 - self.drop)
        outputs = model(encoder_outputs=BaseModelOutput(last_hidden_state=features.float() * seen), labels=labels)
        with torch.no_grad():
            asked = labels >= 0
            right = (outputs.logits.argmax(-1) == labels)[asked].float().mean()
        return outputs.loss, {"token_accuracy": right}
