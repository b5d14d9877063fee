"""What a tuning reads of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from canvas.clip.tuning.neighbours import Edge, read_boards
from canvas.clip.tuning.spec import TrainTextParams
from canvas.pins import tables
from canvas.pins.captions import read_captions
from canvas.pins.fallbacks import Notes, choose_held_out, choose_sources

Texts = Mapping[str, Sequence[str]]
"""Pin id -> its captions."""


@dataclass(frozen=True, slots=True)
class TuningData:
    """Texts by pin, and boards."""

    pins: Path  # table of the images
    train: Texts  # of the train split
    edges: Sequence[Edge]  # of the train split's pins and their boards
    scored: Texts  # of held-out pins, in one wording
    prompts: Texts  # of held-out pins, in every wording

    @classmethod
    def read(
        cls, pins: Path, kept: Path, captions: Path, params: TrainTextParams, saves: Sequence[Edge], notes: Notes
    ) -> TuningData:
        """Read them from the tables; `saves`: pins and boards beyond those of the pins' own rows.

        Raises:
            ValueError: A source of captions is unknown, or no pin has a caption.
        """
        split_of = tables.read_kept_splits(pins, kept)
        train_pins = {pin_id for pin_id, split in split_of.items() if split == "train"}
        held_out = choose_held_out(split_of, notes)
        train = read_captions(captions, train_pins, choose_sources(captions, train_pins, params.sources, notes))
        scored = choose_sources(captions, held_out, [params.scored_source], notes)
        return cls(
            pins=pins,
            train=train,
            edges=[*read_boards(pins, train), *saves],
            scored=read_captions(captions, held_out, scored),
            prompts=read_captions(captions, held_out, list(dict.fromkeys([*params.sources, *scored]))),
        )
