"""Judgments that nobody gave: what is known of corrupted images, as rows of tables.JUDGMENTS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from canvas.pins import tables
from canvas.reward.batches import ComparisonBatches
from canvas.reward.comparisons import QUESTION_BY_HEAD, Comparison, compute_absolute_labels, compute_preferences
from canvas.reward.spec import HEADS

SYNTHETIC_RATER = "synthetic"
CHUNK_SIZE = 500  # comparisons whose rows are in memory


def write_synthetic_judgments(path: Path, sets: Mapping[str, ComparisonBatches]) -> int:
    """Write the judgments of all comparisons, set after set; return how many they are."""
    with tables.Writer(path, tables.JUDGMENTS) as writer:
        for name, batches in sets.items():
            for first in range(0, len(batches.comparisons), CHUNK_SIZE):
                rows = [
                    row
                    for number, comparison in enumerate(batches.comparisons[first : first + CHUNK_SIZE], first)
                    for row in _build_judgments(f"{name}-{number:06d}", comparison, batches)
                ]
                writer.add(pa.Table.from_pylist(rows, tables.JUDGMENTS))
    return writer.rows


def _build_judgments(item: str, comparison: Comparison, batches: ComparisonBatches) -> Iterator[dict[str, Any]]:
    """Yield which of both is better, and how good each is, question by question where it is known."""
    view = batches.views[comparison.view]
    variants = comparison.first, comparison.second
    names = [variant.format_name(view.pin_id) for variant in variants]
    goods = [compute_absolute_labels(variant, view, batches.scenes, comparison.prompt) for variant in variants]
    judgments = [
        ("pairwise", names[0], names[1], compute_preferences(comparison, goods[0], goods[1])),
        *(("absolute", name, None, good) for name, good in zip(names, goods, strict=True)),
    ]
    common = dict.fromkeys(tables.JUDGMENTS.names) | {
        "item_id": item,
        "rater": SYNTHETIC_RATER,
        "source": "synthetic",
        "cause": "+".join(sorted(comparison.kinds)),
        "attention": False,
    }
    for turn, (kind, first, second, values) in enumerate(judgments):
        for head, value in zip(HEADS, values, strict=True):
            if not np.isnan(value) and (head != "overall" or np.isnan(values[HEADS.index("prompted")])):
                yield common | {
                    "judgment_id": f"{item}-{turn}-{head}",
                    "kind": kind,
                    "question": QUESTION_BY_HEAD[head],
                    "value": float(value),
                    "first": first,
                    "second": second,
                }
