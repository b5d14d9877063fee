"""What stages do instead where a catalogue lacks what their params name, and the notes that say so.

A catalogue of one's own has no truth, and often neither alt texts nor boards nor engagement. A stage takes the nearest
that is there and notes it: `notes` in its metrics, a list of sentences beside the numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from canvas.pins import tables
from canvas.terminal import strip_controls

CAPTION_PREFERENCE = ("alt", "title", "description", "generated")
"""Sources of captions in the order in which one stands for another: an owner's words know the product."""


class Notes:
    """What a stage did otherwise than its params say, for want of something in the catalogue."""

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Keep the sentence for the metrics, and tell it to who runs the stage; once, however often it is added."""
        if sentence not in self._sentences:
            self._sentences.append(sentence)
            print(strip_controls(f"note: {sentence}"), file=sys.stderr)

    def to_metrics(self) -> dict[str, list[str]]:
        """Return {"notes": sentences}; {} where nothing is noted."""
        return {"notes": list(self._sentences)} if self._sentences else {}


def choose_splits(available: Iterable[str], wanted: Collection[str], notes: Notes) -> tuple[str, ...]:
    """Return `wanted` where one of them is `available`; else the held-out splits, else those that there are."""
    present = set(available)
    if present & set(wanted):
        return tuple(wanted)
    chosen = tuple(split for split in tables.SPLITS if split in present - {"train"}) or tuple(sorted(present))
    if chosen:
        notes.add(f"no usable pin of {' or '.join(wanted)}, so those of {' and '.join(chosen)} were taken")
    return chosen or tuple(wanted)


def choose_product_splits(
    pins: Path, kept: Path, masks: Path, wanted: Collection[str], notes: Notes
) -> tuple[str, ...]:
    """Return `wanted`, or what `choose_splits` says, of the kept pins with an accepted mask."""
    split_of = tables.read_kept_splits(pins, kept)
    rows = tables.read(masks, ["pin_id", "rejected"]).to_pylist()
    good = (row["pin_id"] for row in rows if row["rejected"] is None and row["pin_id"] in split_of)
    return choose_splits((split_of[pin_id] for pin_id in good), wanted, notes)


def choose_held_out(split_of: dict[str, str], notes: Notes) -> dict[str, str]:
    """Return the pins that training does not see, by id; all of them where none is held out."""
    held_out = {pin_id: split for pin_id, split in split_of.items() if split != "train"}
    if not held_out:
        notes.add("no pin is held out, so pins that training saw were scored")
    return held_out or split_of


def choose_sources(captions: Path, pin_ids: Collection[str], wanted: Sequence[str], notes: Notes) -> tuple[str, ...]:
    """Return `wanted` where a pin of `pin_ids` has a caption from one of them; else the first source that has one.
    "alt+title" is one source of two (`canvas.pins.captions.read_captions`).

    Raises `ValueError` for a source that there is not.
    """
    parts = {part for source in wanted for part in source.split("+")}
    if unknown := sorted(parts - {*CAPTION_PREFERENCE}):
        raise ValueError(f"captions have no source {', '.join(unknown)}: name some of {', '.join(CAPTION_PREFERENCE)}")
    rows = tables.read(captions, ["pin_id", "source"]).to_pylist()
    present = {row["source"] for row in rows if row["pin_id"] in pin_ids}
    if present & parts or not present:
        return tuple(wanted)
    chosen = min(present, key=CAPTION_PREFERENCE.index)
    notes.add(f"no pin has a caption from {' or '.join(wanted)}, so {chosen} stood for it")
    return (chosen,)
