"""How well pictures and texts find each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics.intervals import bootstrap_mean


def find_hits(similarity: NDArray[np.float32], answers: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """For each query (row), whether one of its answers is among the `k` most similar candidates (columns).

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
    """Recall@k from picture to text and back, with 95 % intervals.

    `images` and `texts` are [N, E], normalised, row i of both is pin i with `captions[i]`. A caption that several
    pins share is one candidate, and right for each of them.
    """
    distinct = sorted(set(captions))
    place = {caption: at for at, caption in enumerate(distinct)}
    answers = np.zeros((len(captions), len(distinct)), bool)
    answers[np.arange(len(captions)), [place[caption] for caption in captions]] = True
    first_of = {caption: at for at, caption in reversed(list(enumerate(captions)))}
    similarity = images @ texts[[first_of[caption] for caption in distinct]].T
    figures: dict[str, float] = {"pins": len(captions), "captions": len(distinct)}
    for name, scores, right in (("image_to_text", similarity, answers), ("text_to_image", similarity.T, answers.T)):
        for k in ks:
            recall = bootstrap_mean(find_hits(scores, right, k).astype(float).tolist())
            key = f"{name}_recall_at_{k}"
            figures |= {key: recall.mean, f"{key}_low": recall.low, f"{key}_high": recall.high}
    return figures
