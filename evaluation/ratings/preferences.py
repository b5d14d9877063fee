"""What people said of pictures, together with the pictures, as small as the reward model needs them to learn from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import composite_on_white, decode_image, encode_png
from canvas.pins.masks import decode_mask, encode_mask
from canvas.pins.tables import PREFERENCES, QUESTIONS
from evaluation.ratings.agreement import Judgment, select_counted

Row = dict[str, Any]
"""A row of tables.PREFERENCES."""

CandidateIds = tuple[str, str | None]
"""Candidates that were shown together, in the order of their ids, or one alone."""

SIDE = 256
"""Longest side of the pictures that are kept: what the largest reward model sees."""


def collect_preferences(ratings: Path, candidates: Path, pins: Path) -> list[Row]:
    """What was said and counts (evaluation.ratings.agreement.select_counted) of those `candidates`, with pictures of
    them and of their products from `pins`, sorted. What is about other candidates is left out, for what they looked
    like is not known."""
    said = _group_by_candidates(select_counted(tables.read(ratings).to_pylist()))
    painted = _read_rows(candidates, "candidate_id", {one for shown in said for one in shown if one is not None})
    said = {shown: rows for shown, rows in said.items() if all(one is None or one in painted for one in shown)}
    products = _read_rows(pins, "pin_id", {painted[first]["pin_id"] for first, _ in said})
    return [
        _build_preference(shown, rows, painted, products[painted[shown[0]]["pin_id"]])
        for shown, rows in sorted(said.items(), key=lambda item: _get_sort_key(item[0]))
    ]


def merge_preferences(known: Iterable[Row], fresh: Sequence[Row]) -> list[Row]:
    """The `fresh` rows, and the `known` ones of what was not shown in those, sorted."""
    rows = {(row["first"], row["second"]): row for row in [*known, *fresh]}
    return [rows[shown] for shown in sorted(rows, key=_get_sort_key)]


def write_preferences(place: Path, rows: Sequence[Row]) -> None:
    """Write the table of `rows`; none make an empty table of always the same bytes."""
    tables.write(place, [pa.Table.from_pylist(list(rows), schema=PREFERENCES)], PREFERENCES)


def read_preferences(place: Path) -> list[Row]:
    """The table at `place`, a row a dictionary."""
    return [dict(row) for row in tables.read(place).to_pylist()]


def _group_by_candidates(judgments: Iterable[Judgment]) -> dict[CandidateIds, list[tuple[str, float]]]:
    """What was shown -> questions, and values for the first of it."""
    found: dict[CandidateIds, list[tuple[str, float]]] = {}
    for row in judgments:
        first, second, value = row["first"], row["second"], float(row["value"])
        if second is not None and second < first:
            first, second, value = second, first, 1 - value
        found.setdefault((first, second), []).append((row["question"], value))
    return found


def _read_rows(table: Path, key: str, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those rows, pictures and all, by `key`."""
    known = tables.read_batches(table) if wanted else ()
    return {row[key]: row for batch in known for row in batch.to_pylist() if row[key] in wanted}


def _build_preference(
    shown: CandidateIds, said: Sequence[tuple[str, float]], painted: dict[str, dict[str, Any]], pin: dict[str, Any]
) -> Row:
    first, second = shown
    values = {question: [value for asked, value in said if asked == question] for question in QUESTIONS}
    mask = Image.fromarray(decode_mask(painted[first]["mask"]).astype(np.uint8) * 255)
    return {
        "first": first,
        "second": second,
        "pin_id": pin["pin_id"],
        "product_id": pin["product_id"],
        "prompt": painted[first]["prompt"],
        **{question: float(np.mean(given)) if given else None for question, given in values.items()},
        "judgments": len(said),
        "product": encode_png(_shrink_image(composite_on_white(decode_image(pin["image"])))),
        "mask": encode_mask(np.asarray(_shrink_image(mask)) >= 128),
        "first_image": encode_png(_shrink_image(decode_image(painted[first]["image"]))),
        "second_image": None if second is None else encode_png(_shrink_image(decode_image(painted[second]["image"]))),
    }


def _shrink_image(image: Image.Image) -> Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _get_sort_key(shown: CandidateIds) -> tuple[str, str]:
    first, second = shown
    return first, second or ""
