"""What text states know of scenes and products, without images and without a denoiser.

The denoiser reads a text's hidden states, not its embedding. Texts whose states lie close are much the same prompt to
it: so the nearest other text should speak of the same scene, or of the same product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.clip.model import Tower, encode_prompts
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import load_towers
from canvas.device import default_device
from canvas.uve.training import Labels
from evaluation.measures.neighbours import compute_label_recall

TASKS = ("scene", "product")


def compute_mean_states(towers: Sequence[Tower], texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
    """Return the mean of each text's states over its tokens, padding included as the denoiser reads it, (N, D)."""
    means = [
        encode_prompts(towers, texts[at : at + batch_size])[0].float().mean(dim=1).cpu()
        for at in range(0, len(texts), batch_size)
    ]
    return torch.cat(means).numpy()


def label_texts(captions: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> dict[str, str | None]:
    """Return text -> the label of the pins that have it; None: they have none, or several."""
    labels_of: dict[str, set[str | None]] = {}
    for pin_id, texts in captions.items():
        for text in texts:
            labels_of.setdefault(text, set()).add(labels.get(pin_id))
    return {text: next(iter(several)) if len(several) == 1 else None for text, several in labels_of.items()}


def compute_text_vectors(
    folder: Path, text: TextSpec, captions: Mapping[str, Sequence[str]], batch_size: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the different texts, and unit vectors (N, D) of their mean states less the mean of all."""
    texts = sorted({caption for captions_of_pin in captions.values() for caption in captions_of_pin})
    towers = [tower.to(default_device()) for tower in load_towers(folder, text)]
    states = compute_mean_states(towers, texts, batch_size)
    states -= states.mean(axis=0)
    return texts, states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)


def score_text_states(
    folder: Path, text: TextSpec, captions: Mapping[str, Sequence[str]], labels: Labels, batch_size: int
) -> dict[str, Mapping[str, float]]:
    """Return recall@k, with 95 % intervals, of the other texts of the same scene, and of the same product.

    Every different text is a query and a candidate for the others, by the cosine of `compute_text_vectors`.

    Args:
        folder: Of the text encoders, as stage train_text or train_clip wrote them.
        text: Their sizes.
        captions: Pin id -> its texts, in several words each.
        labels: Task -> pin id -> its class.
        batch_size: Texts at once.
    """
    texts, vectors = compute_text_vectors(folder, text, captions, batch_size)
    scores = {}
    for task in TASKS:
        label_of = label_texts(captions, labels[task])
        scores[task] = compute_label_recall(vectors, [label_of[name] for name in texts])
    return scores
