"""Kinds of artifacts that commands of the lifecycle read or write: the champion, ratings, and what training learns of
them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lifecycle.declare.stage import Artifact, Dataset


class Pinned(Dataset):
    """A directory that no stage writes: `<path>.dvc` pins its content."""


class PinnedState(Pinned):
    """A pinned directory that begins empty and that a command rewrites."""

    empty: ClassVar[str]
    """What the empty form says, in a few words."""

    @classmethod
    def write_empty(cls, folder: Path) -> None:
        """Write the empty form, always the same bytes."""
        raise NotImplementedError(f"{cls.__name__} needs `write_empty`")


class PinnedChampion(PinnedState):
    """What the registry knows of its champion: champion.json and the tables of its evidence."""

    empty = "there is no champion yet"
    facts: ClassVar[str] = "champion.json"

    @classmethod
    def write_empty(cls, folder: Path) -> None:
        folder.mkdir()
        (folder / cls.facts).write_text(json.dumps({"version": None}) + "\n", encoding="utf-8")


class RatingPacket(Dataset):
    """What raters see: packet.json (lifecycle.ratings.packet) and items/*.png."""


class RatingKey(Dataset):
    """What raters must not see: key.json, with the packet's `name`."""


class PinnedRatings(PinnedState):
    """What people answered."""

    empty = "nobody has rated yet"

    @classmethod
    def write_ratings(
        cls, folder: Path, before: Path, answers: Sequence[Mapping[str, Any]], key: Mapping[str, Any]
    ) -> list[str]:
        """Write the ratings `before` with the answers to the packet of `key` in `folder`; return a summary's lines."""
        raise NotImplementedError(f"{cls.__name__} needs `write_ratings`")


class PinnedFeedback(PinnedState):
    """What training learns of the ratings: taken over from them when somebody decides so, because every model that
    learnt from it has to be rated anew."""

    sources: ClassVar[tuple[type[Artifact], ...]]

    @classmethod
    def write_feedback(cls, folder: Path, before: Path, *sources: Path) -> str:
        """Write the feedback `before` with what `sources` add to it in `folder`; return a summary. `ValueError` if
        they add nothing."""
        raise NotImplementedError(f"{cls.__name__} needs `write_feedback`")
