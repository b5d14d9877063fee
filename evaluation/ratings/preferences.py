"""What people said of pictures, together with the pictures, as small as the reward model needs them to learn from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode, encode_png, on_white
from canvas.pins.masks import decode_mask, encode_mask
from canvas.pins.tables import PREFERENCES, QUESTIONS
from evaluation.ratings.agreement import Judgment, counted

Row = dict[str, Any]
"""A row of tables.PREFERENCES."""

Shown = tuple[str, str | None]
"""Candidates that were shown together, in the order of their ids, or one alone."""

SIDE = 256
"""Longest side of the pictures that are kept: what the largest reward model sees."""


def preferences(ratings: Path, candidates: Path, pins: Path) -> list[Row]:
    """What was said and counts (evaluation.ratings.agreement.counted) of those `candidates`, with pictures of them and
    of their products from `pins`, sorted. What is about other candidates is left out, for what they looked like is not
    known."""
    said = _by_shown(counted(tables.read(ratings).to_pylist()))
    painted = _rows(candidates, "candidate_id", {one for shown in said for one in shown if one is not None})
    said = {shown: rows for shown, rows in said.items() if all(one is None or one in painted for one in shown)}
    products = _rows(pins, "pin_id", {painted[first]["pin_id"] for first, _ in said})
    return [
        _preference(shown, rows, painted, products[painted[shown[0]]["pin_id"]])
        for shown, rows in sorted(said.items(), key=lambda item: _order(item[0]))
    ]


def merged(known: Iterable[Row], fresh: Sequence[Row]) -> list[Row]:
    """The `fresh` rows, and the `known` ones of what was not shown in those, sorted."""
    rows = {(row["first"], row["second"]): row for row in [*known, *fresh]}
    return [rows[shown] for shown in sorted(rows, key=_order)]


def write(place: Path, rows: Sequence[Row]) -> None:
    """Write the table of `rows`; none make an empty table of always the same bytes."""
    tables.write(place, [pa.Table.from_pylist(list(rows), schema=PREFERENCES)], PREFERENCES)


def read(place: Path) -> list[Row]:
    """The table at `place`, a row a dictionary."""
    return [dict(row) for row in tables.read(place).to_pylist()]


def _by_shown(judgments: Iterable[Judgment]) -> dict[Shown, list[tuple[str, float]]]:
    """What was shown -> questions, and values for the first of it."""
    found: dict[Shown, list[tuple[str, float]]] = {}
    for row in judgments:
        first, second, value = row["first"], row["second"], float(row["value"])
        if second is not None and second < first:
            first, second, value = second, first, 1 - value
        found.setdefault((first, second), []).append((row["question"], value))
    return found


def _rows(table: Path, key: str, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those rows, pictures and all, by `key`."""
    known = tables.batches(table) if wanted else ()
    return {row[key]: row for batch in known for row in batch.to_pylist() if row[key] in wanted}


def _preference(
    shown: Shown, said: Sequence[tuple[str, float]], painted: dict[str, dict[str, Any]], pin: dict[str, Any]
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
        "product": encode_png(_reduced(on_white(decode(pin["image"])))),
        "mask": encode_mask(np.asarray(_reduced(mask)) >= 128),
        "first_image": encode_png(_reduced(decode(painted[first]["image"]))),
        "second_image": None if second is None else encode_png(_reduced(decode(painted[second]["image"]))),
    }


def _reduced(image: Image.Image) -> Image.Image:
    scale = min(1.0, SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _order(shown: Shown) -> tuple[str, str]:
    first, second = shown
    return first, second or ""
