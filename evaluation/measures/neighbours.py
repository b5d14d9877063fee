"""Do the nearest neighbours of an image share its label?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canvas.pins.images import Pixels, draw_contact_sheet
from canvas.uve.training import Labels
from evaluation.measures.retrieval import find_hits
from evaluation.statistics.intervals import compute_mean_metrics

KS = (1, 10)

SCORED_SPLITS = {
    "scene": ("unseen_view", "unseen_both"),
    "product": ("unseen_product", "unseen_both"),
    "category": ("unseen_product", "unseen_both"),
    "board": ("unseen_product", "unseen_view", "unseen_both"),
}
"""Splits that each task is scored on: nobody trained on those views, or those products."""

NEIGHBOUR_COUNT = 6  # neighbours of a pin on the sheet
ROWS_AT_ONCE = 1000  # queries whose similarities with every candidate are held in memory


def compute_recalls(
    ids: Sequence[str],
    embeddings: Mapping[str, NDArray[np.float32]],
    held_out: Collection[str],
    labels: Labels,
    split_of: Mapping[str, str],
) -> dict[str, dict[str, dict[str, Mapping[str, float]]]]:
    """Return `compute_label_recall` by embedding and task, for the pins of `held_out` that the task is scored on.

    Among each other ("held_out"), and among all `ids` ("catalogue"), of which `embeddings` has [N, E] by name.
    """
    recalls: dict[str, dict[str, dict[str, Mapping[str, float]]]] = {name: {} for name in embeddings}
    for task, splits in SCORED_SPLITS.items():
        queries = [row for row, pin in enumerate(ids) if pin in held_out and split_of[pin] in splits]
        classes = [labels[task].get(pin) for pin in ids]
        for name, vectors in embeddings.items():
            recalls[name][task] = {
                "held_out": compute_label_recall(vectors[queries], [classes[row] for row in queries]),
                "catalogue": compute_label_recall(vectors, classes, queries),
            }
    return recalls


def compute_label_recall(
    vectors: NDArray[np.float32], labels: Sequence[str | None], queries: Sequence[int] | None = None
) -> Mapping[str, float]:
    """Return recall@k of `find_label_hits`, with 95 % intervals; the number of queries is all there is if there is
    none."""
    rows, hits = find_label_hits(vectors, labels, queries)
    metrics: dict[str, float] = {"queries": len(rows)}
    for k, at_k in hits.items():
        metrics |= compute_mean_metrics(f"recall_at_{k}", at_k.astype(float).tolist())
    return metrics


def find_label_hits(
    vectors: NDArray[np.float32], labels: Sequence[str | None], queries: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], dict[int, NDArray[np.bool_]]]:
    """Return the rows that ask, and for each k whether a row of the same label is among the k nearest by cosine.

    Ties count against it. Of the rows `queries` (None: all) those ask whose label another row shares. `vectors` are
    unit vectors [N, E]; all rows are candidates.
    """
    counts = Counter(label for label in labels if label is not None)
    candidates = range(len(labels)) if queries is None else queries
    rows = np.array([row for row in candidates if (label := labels[row]) is not None and counts[label] > 1], np.int64)
    number = {label: at for at, label in enumerate(counts)}
    classes = np.array([-1 if label is None else number[label] for label in labels])
    hits = {k: np.zeros(0, bool) for k in KS}
    for first in range(0, len(rows), ROWS_AT_ONCE):
        chunk = rows[first : first + ROWS_AT_ONCE]
        similarity = vectors[chunk] @ vectors.T
        answers = classes[chunk][:, None] == classes[None, :]
        for matrix, none in ((similarity, -np.inf), (answers, False)):  # a pin does not find itself
            matrix[np.arange(len(chunk)), chunk] = none
        for k in KS:
            hits[k] = np.concatenate([hits[k], find_hits(similarity, answers, k)])
    return rows, hits


def find_nearest(vectors: NDArray[np.float32], row: int, count: int) -> list[int]:
    """Return the `count` rows most similar to `row`, itself left out."""
    similarity = vectors @ vectors[row]
    similarity[row] = -np.inf
    return [int(place) for place in np.argsort(-similarity, kind="stable")[:count]]


def draw_neighbour_sheet(
    ids: Sequence[str], images: Sequence[Pixels], vectors: NDArray[np.float32], queries: Sequence[str], labels: Labels
) -> Image.Image:
    """Draw a row for each of `queries`: the pin, then the pins nearest to it, each with its scene and product."""
    row_of = {pin: row for row, pin in enumerate(ids)}
    count = min(NEIGHBOUR_COUNT, len(ids) - 1)
    rows = [row for pin in queries for row in (row_of[pin], *find_nearest(vectors, row_of[pin], count))]
    titles = [
        f"{labels['scene'].get(ids[row], '-')} / {labels['product'].get(ids[row], '-').rpartition('-')[2]}"
        for row in rows
    ]
    return draw_contact_sheet([Image.fromarray(images[row]) for row in rows], titles, columns=1 + count, cell=128)
