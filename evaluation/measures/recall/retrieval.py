"""How well images and texts find each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from canvas.clip.model import TextTower
from canvas.clip.spec import ClipSpec
from canvas.device import default_device
from canvas.features.perceptual import compute_image_embeddings
from canvas.pins.frames import FrameSpec
from canvas.pins.image_batches import batch_by_frame
from canvas.pins.images import bytes_to_tensor
from evaluation.statistics.intervals import compute_mean_metrics


def find_hits(similarity: NDArray[np.float32], answers: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """Return for each query (row) whether one of its answers is among the `k` most similar candidates (columns).

    Ties count against the query. Raises `ValueError` if a query has no answer: it could not be found.
    """
    if similarity.shape != answers.shape or not answers.any(axis=1).all():
        raise ValueError(
            f"each of the {len(similarity)} queries needs an answer among {similarity.shape[1]} candidates"
        )
    best = np.where(answers, similarity, -np.inf).max(axis=1, keepdims=True)
    ahead = (~answers & (similarity >= best)).sum(axis=1)
    return np.asarray(ahead < k)


def compute_retrieval_metrics(
    images: NDArray[np.float32], texts: NDArray[np.float32], captions: Sequence[str], ks: Sequence[int] = (1, 5)
) -> Mapping[str, float]:
    """Return recall@k from image to text and back, with 95 % intervals.

    `images` and `texts` are [N, E], normalised; row i of both is pin i with `captions[i]`. A caption that several
    pins share is one candidate, and right for each of them.
    """
    distinct, firsts, places = np.unique(captions, return_index=True, return_inverse=True)
    answers = places[:, None] == np.arange(len(distinct))
    similarity = images @ texts[firsts].T
    metrics: dict[str, float] = {"pins": len(captions), "captions": len(distinct)}
    for name, scores, right in (("image_to_text", similarity, answers), ("text_to_image", similarity.T, answers.T)):
        for k in ks:
            hits = find_hits(scores, right, k).astype(float).tolist()
            metrics |= compute_mean_metrics(f"{name}_recall_at_{k}", hits)
    return metrics


def score_retrieval(
    clip: open_clip.CLIP,
    tower: TextTower,
    pins: Path,
    captions: Mapping[str, Sequence[str]],
    split_of: Mapping[str, str],
    frames: FrameSpec,
    batch_size: int,
) -> dict[str, Mapping[str, float]]:
    """Return `compute_retrieval_metrics` by split, of pins in their frames and the first of their `captions` each.

    `tower` is the text half of `clip`, which is in eval mode; `captions` and `split_of` are by pin id.
    """
    pairs = embed_pairs(clip, tower, pins, captions, split_of, frames, batch_size)
    return {split: compute_retrieval_metrics(of_split.images, of_split.texts, of_split.captions)
            for split, of_split in pairs.items()}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pairs:
    """Unit embeddings of pins and of their captions, row by row."""

    images: NDArray[np.float32]  # (N, E)
    texts: NDArray[np.float32]  # (N, E)
    captions: list[str]

    def cut(self, width: int) -> Pairs:
        """Return the first `width` numbers of the embeddings, as unit vectors."""
        images, texts = (rows[:, :width] for rows in (self.images, self.texts))
        return Pairs(
            images / np.linalg.norm(images, axis=1, keepdims=True),
            texts / np.linalg.norm(texts, axis=1, keepdims=True),
            self.captions,
        )


@torch.no_grad()
def embed_pairs(
    clip: open_clip.CLIP,
    tower: TextTower,
    pins: Path,
    captions: Mapping[str, Sequence[str]],
    split_of: Mapping[str, str],
    frames: FrameSpec,
    batch_size: int,
) -> dict[str, Pairs]:
    """Return the embeddings of pins and of the first of their captions by split; arguments as `score_retrieval`."""
    embeddings: dict[str, list[tuple[str, torch.Tensor]]] = {}
    device = clip.logit_scale.device
    tower.to(device)
    for batch in batch_by_frame(pins, {pin_id: split_of[pin_id] for pin_id in captions}, frames, batch_size):
        images = bytes_to_tensor(batch["images"].to(device))
        rows = zip(batch["pin_id"], batch["split"], compute_image_embeddings(clip, images).cpu(), strict=True)
        for pin_id, split, embedding in rows:
            embeddings.setdefault(split, []).append((pin_id, embedding))
    pairs = {}
    for split, rows_of_split in sorted(embeddings.items()):
        texts = [captions[pin_id][0] for pin_id, _ in rows_of_split]
        pooled = [tower(tower.tokenize(texts[at : at + 64]))[1].cpu() for at in range(0, len(texts), 64)]
        pairs[split] = Pairs(
            torch.stack([embedding for _, embedding in rows_of_split]).numpy(),
            F.normalize(torch.cat(pooled), dim=-1).numpy(),
            texts,
        )
    return pairs


def score_widths(
    clip: open_clip.CLIP,
    spec: ClipSpec,
    widths: Sequence[int],
    pins: Path,
    captions: Mapping[str, Sequence[str]],
    frames: FrameSpec,
    batch_size: int,
) -> dict[str, Mapping[str, float]]:
    """Return `compute_retrieval_metrics` of pins in their frames and the first of their `captions` each, of embeddings
    that are cut to each of `widths`."""
    clip.eval().to(default_device())
    tower = TextTower.from_clip(clip, spec)
    (pairs,) = embed_pairs(clip, tower, pins, captions, dict.fromkeys(captions, "any"), frames, batch_size).values()
    scores = {}
    for width in widths:
        cut = pairs.cut(width)
        scores[f"width_{width}"] = compute_retrieval_metrics(cut.images, cut.texts, cut.captions)
    return scores
