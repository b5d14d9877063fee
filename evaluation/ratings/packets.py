"""A rating packet: which images people compare, in what pairs, and on what sheet.

Blind: an item is a sheet with A and B on it, its id is made of its content, and the key (which model generated which,
what an attention check expects) is kept apart, since the server that raters sign in to must not have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from canvas.pins.images import decode_image, encode_png
from canvas.pins.tables import QUESTIONS
from canvas.ranges import Count, Natural
from evaluation.ratings.judgments import RatingRules

Row = Mapping[str, Any]  # a row of tables.CANDIDATES

CHALLENGER, CHAMPION, PASTE, SPOILED = "challenger", "champion", "paste", "spoiled"

PAIRED: Mapping[str, str] = {
    "preference": "Which picture is better, all in all?",
    "fidelity": "In which one is the product closer to the original?",
    "defects": "Which one has fewer defects?",
    "aesthetics": "Which one is nicer to look at?",
}
CHOICES: Mapping[str, float] = {"A": 1.0, "B": 0.0, "No difference": 0.5}
SINGLE: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "preference": ("Would you show this picture to a customer?", {"Yes": 1.0, "No": 0.0}),
    "fidelity": ("Is the product the original one, whole and unchanged?", {"Yes": 1.0, "No": 0.0}),
    "defects": ("Is anything broken, cut off, doubled or pasted on?", {"Nothing": 1.0, "Something": 0.0}),
    "aesthetics": (
        "How nice is the picture to look at?",
        {"Very": 1.0, "Rather": 0.75, "So-so": 0.5, "Hardly": 0.25, "Not at all": 0.0},
    ),
}

CELL, LINE, GAP = 420, 30, 14
INK, PAPER, GREY = (20, 20, 20), (255, 255, 255), (110, 110, 110)


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketSpec:
    """Questions and items of a packet. `rules`: who counts; fixed with the packet, before anybody has rated."""

    pairs: Count  # two models' images of one item and seed, each once
    repeats: Natural  # pairs shown again, sides swapped
    checks: Natural  # attention checks: an image beside its spoiled self
    singles: Natural  # images alone, of each of the two models; a queue of their own
    pair_questions: tuple[str, ...]  # about pairs, of tables.QUESTIONS
    single_questions: tuple[str, ...]  # about single images, of tables.QUESTIONS
    rules: RatingRules
    seed: Natural  # of the choice of items and their sides

    def __post_init__(self) -> None:
        if self.repeats > self.pairs:
            raise ValueError(f"a packet has no more repeats than pairs, not {self.repeats} of {self.pairs}")
        if unknown := {*self.pair_questions, *self.single_questions} - set(QUESTIONS):
            raise ValueError(f"questions are among {', '.join(QUESTIONS)}, not {', '.join(sorted(unknown))}")
        if not self.pair_questions or (self.singles and not self.single_questions):
            raise ValueError("a packet asks at least one question of every kind of item that it has")


@dataclass(frozen=True, slots=True)
class RatingItem:
    """An item and its key."""

    first: Row  # on the left
    second: Row | None  # None: alone
    expected: float | None = None  # value that an attention check should get; None: it is none
    repeat_of: int | None = None  # place of the item that it repeats

    @property
    def kind(self) -> str:
        return "absolute" if self.second is None else "pairwise"

    @property
    def prompt(self) -> str:
        """What was asked for. Of two prompts, each cut to its model's room, it is the longer one, on whichever side, so
        that it gives no model away."""
        prompts = [row["prompt"] for row in (self.first, self.second) if row is not None]
        return max(prompts, key=lambda prompt: (len(prompt), prompt))


def build_items(candidates: Sequence[Row], spec: PacketSpec) -> list[RatingItem]:
    """Build the packet's items in the order they are drawn in, sides shuffled by `spec.seed`.

    The challenger meets the champion where both generated an item from one seed, else (no champion yet) the paste.
    Raises `ValueError` if there is nothing to compare.
    """
    rng = np.random.default_rng(spec.seed)
    by_model: dict[str, dict[tuple[str, int], Row]] = {CHALLENGER: {}, CHAMPION: {}, PASTE: {}, SPOILED: {}}
    for row in candidates:
        by_model[row["model"]][row["item_id"], row["seed"]] = row
    challenger = by_model[CHALLENGER]
    other = by_model[CHAMPION] or by_model[PASTE]
    meeting = sorted(challenger.keys() & other.keys())
    if not meeting:
        raise ValueError("no item has images by two models from one seed: sample candidates of both")
    order = [meeting[place] for place in rng.permutation(len(meeting))]
    items = [_shuffle_sides(challenger[key], other[key], rng) for key in order[: spec.pairs]]
    for place in rng.permutation(len(items))[: spec.repeats]:
        again = items[place]
        assert again.second is not None
        items.append(RatingItem(again.second, again.first, repeat_of=int(place)))
    # Spoiled copies of items that no pair shows come first, so that a check does not give a pair away.
    unused = sorted(by_model[SPOILED].keys() & challenger.keys(), key=lambda key: (key in order[: spec.pairs], key))
    items += [
        _shuffle_sides(challenger[key], by_model[SPOILED][key], rng, expected=1.0) for key in unused[: spec.checks]
    ]
    items += [RatingItem(model[key], None) for key in reversed(order) for model in (challenger, other)][
        : 2 * spec.singles
    ]
    return items


def write_packet(
    candidates: Sequence[Row], originals: Mapping[str, Image.Image], spec: PacketSpec, packet: Path, key: Path
) -> int:
    """Write `packet`/ (packet.json, items/*.png) and `key`/ (key.json); return the number of items.

    `originals`: pin_id -> the product as it came. The same arguments give the same bytes.
    """
    items = build_items(candidates, spec)
    (packet / "items").mkdir(parents=True)
    key.mkdir(parents=True)
    sheets = [encode_png(draw_sheet(originals[item.first["pin_id"]], item)) for item in items]
    ids = [
        "i" + hashlib.sha256(f"{spec.seed} {place} ".encode() + png).hexdigest()[:15]
        for place, png in enumerate(sheets)
    ]
    name = "p" + hashlib.sha256(" ".join(ids).encode()).hexdigest()[:9]
    for item_id, png in zip(ids, sheets, strict=True):
        (packet / "items" / f"{item_id}.png").write_bytes(png)
    # In the order of the ids, which says nothing: repeats and checks do not stand at the end.
    places = sorted(range(len(items)), key=lambda place: ids[place])
    questions = list_questions(spec)
    blind = [
        {"item_id": ids[place], "kind": items[place].kind, "prompt": items[place].prompt}
        | {"picture": f"items/{ids[place]}.png"}
        for place in places
    ]
    _write_json(packet / "packet.json", {"name": name, "questions": questions, "items": blind})
    keys = {ids[place]: _build_key(items[place], ids) for place in places}
    rules = asdict(spec.rules)
    _write_json(key / "key.json", {"name": name, "rules": rules, "questions": questions, "items": keys})
    return len(items)


def list_questions(spec: PacketSpec) -> list[dict[str, Any]]:
    """List the questions: {"name", "kind", "text", "answers": {words: value}}."""
    questions: list[dict[str, Any]] = [
        {"name": name, "kind": "pairwise", "text": PAIRED[name], "answers": dict(CHOICES)}
        for name in spec.pair_questions
    ]
    if spec.singles:
        questions += [
            {"name": name, "kind": "absolute", "text": SINGLE[name][0], "answers": dict(SINGLE[name][1])}
            for name in spec.single_questions
        ]
    return questions


def resize_image(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Return the image with `side` pixels on its longest side."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resample)


def draw_sheet(original: Image.Image, item: RatingItem) -> Image.Image:
    """Draw the original product on top and the generated images below: A and B, or one alone, of one size."""
    rows = [item.first] if item.second is None else [item.first, item.second]
    images = [decode_image(row["image"]) for row in rows]
    # A champion's stored images may be smaller; sharpness must not tell who is who.
    size = min((image.size for image in images), key=lambda size: size[0] * size[1])
    images = [image.resize(size, Image.Resampling.LANCZOS) if image.size != size else image for image in images]
    top = resize_image(original.convert("RGB"), CELL * 2 // 3, Image.Resampling.LANCZOS)
    cells = [resize_image(image.convert("RGB"), CELL, Image.Resampling.LANCZOS) for image in images]
    width = max(len(cells) * (CELL + GAP), top.width + GAP) + GAP
    height = 2 * LINE + top.height + max(cell.height for cell in cells) + 3 * GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_centred_text(draw, "The product", width // 2, GAP // 2, GREY, 18)
    sheet.paste(top, ((width - top.width) // 2, LINE))
    below = LINE + top.height + GAP
    for place, cell in enumerate(cells):
        middle = width // 2 if len(cells) == 1 else GAP + CELL // 2 + place * (CELL + GAP)
        _draw_centred_text(draw, "AB"[place] if len(cells) == 2 else "The picture", middle, below, INK, 24)
        sheet.paste(cell, (middle - cell.width // 2, below + LINE + GAP // 2))
    return sheet


def _shuffle_sides(left: Row, right: Row, rng: np.random.Generator, expected: float | None = None) -> RatingItem:
    if rng.random() < 0.5:
        return RatingItem(left, right, expected)
    return RatingItem(right, left, None if expected is None else 1 - expected)


def _build_key(item: RatingItem, ids: Sequence[str]) -> dict[str, Any]:
    second = item.second or {"candidate_id": None, "digest": None}
    return {
        "kind": item.kind,
        "first": item.first["candidate_id"],
        "second": second["candidate_id"],
        "first_model": item.first["digest"],
        "second_model": second["digest"],
        "expected": item.expected,
        "repeat_of": None if item.repeat_of is None else ids[item.repeat_of],
    }


def _draw_centred_text(
    draw: ImageDraw.ImageDraw, text: str, middle: int, top: int, colour: tuple[int, int, int], size: int
) -> None:
    font = ImageFont.load_default(size)
    draw.text((middle - font.getlength(text) / 2, top), text, fill=colour, font=font)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
