"""People's judgments together with the images, as small as the reward model needs them to learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import composite_on_white, decode_image, encode_png
from canvas.pins.masks import decode_mask, encode_mask
from canvas.pins.tables import QUESTIONS
from evaluation.ratings.agreement import Judgment, orient_judgment, select_counted, select_first_answers
from evaluation.ratings.packets import resize_image

Row = dict[str, Any]  # a row of tables.PREFERENCES

CandidateIds = tuple[str, str | None]  # ids of two candidates that were rated together, in their order, or of one alone

SIDE = 256  # longest side of the images that are kept, in pixels: what the largest reward model sees


def collect_preferences(ratings: Path, candidates: Path, pins: Path) -> list[Row]:
    """Collect the judgments that count of those `candidates`, with images of them and of their products, sorted.

    Of two answers of a rater to one pair the first counts. Judgments of other candidates are left out: their images are
    not at hand.
    """
    counted = select_counted(tables.read(ratings).to_pylist())
    judgments = _group_by_candidates(select_first_answers(counted))
    rows = _read_rows(candidates, "candidate_id", {id_ for ids in judgments for id_ in ids if id_ is not None})
    complete = {ids: values for ids, values in judgments.items() if all(id_ is None or id_ in rows for id_ in ids)}
    products = _read_rows(pins, "pin_id", {rows[first]["pin_id"] for first, _ in complete})
    return [
        _build_preference(ids, values, rows, products[rows[ids[0]]["pin_id"]])
        for ids, values in sorted(complete.items(), key=lambda item: _get_sort_key(item[0]))
    ]


def merge_preferences(earlier: Iterable[Row], fresh: Sequence[Row]) -> list[Row]:
    """Return the `fresh` rows and the `earlier` ones of other candidates, sorted."""
    rows = {(row["first"], row["second"]): row for row in [*earlier, *fresh]}
    return [rows[ids] for ids in sorted(rows, key=_get_sort_key)]


def _group_by_candidates(judgments: Iterable[Judgment]) -> dict[CandidateIds, list[tuple[str, float]]]:
    """Return candidates -> questions, each with its value for the first candidate."""
    groups: dict[CandidateIds, list[tuple[str, float]]] = defaultdict(list)
    for row in judgments:
        (first, second), value = orient_judgment(row)
        groups[(first, second) if first else (second, None)].append((row["question"], float(value)))
    return groups


def _read_rows(table: Path, key: str, keys: Collection[str]) -> dict[str, Row]:
    """Return the rows whose column `key` is in `keys`, by it."""
    batches = tables.read_batches(table) if keys else ()
    return {row[key]: row for batch in batches for row in batch.to_pylist() if row[key] in keys}


def _build_preference(
    ids: CandidateIds, judgments: Sequence[tuple[str, float]], rows: Mapping[str, Row], pin: Row
) -> Row:
    first, second = ids
    values = {name: [value for question, value in judgments if question == name] for name in QUESTIONS}
    mask = Image.fromarray(decode_mask(rows[first]["mask"]).astype(np.uint8) * 255)
    return {
        "first": first,
        "second": second,
        "pin_id": pin["pin_id"],
        "product_id": pin["product_id"],
        "prompt": rows[first]["prompt"],
        **{name: float(np.mean(answers)) if answers else None for name, answers in values.items()},
        "judgments": len(judgments),
        "product": encode_png(_shrink_image(composite_on_white(decode_image(pin["image"])))),
        "mask": encode_mask(np.asarray(_shrink_image(mask)) >= 128),
        "first_image": encode_png(_shrink_image(decode_image(rows[first]["image"]))),
        "second_image": None if second is None else encode_png(_shrink_image(decode_image(rows[second]["image"]))),
    }


def _shrink_image(image: Image.Image) -> Image.Image:
    return resize_image(image, SIDE, Image.Resampling.BILINEAR) if max(image.size) > SIDE else image


def _get_sort_key(ids: CandidateIds) -> tuple[str, str]:
    return ids[0], ids[1] or ""
