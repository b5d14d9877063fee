"""A rating packet as the rating server gets it: images and questions, and nothing of which model made what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKET = "packet.json"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every item of one kind."""

    name: str
    kind: str  # "pairwise" | "absolute"
    text: str  # as raters read it
    answers: Mapping[str, float]  # as raters read it -> value in the table of judgments


@dataclass(frozen=True, slots=True)
class Item:
    """An image to judge."""

    item_id: str
    kind: str
    prompt: str
    image: Path  # PNG


@dataclass(frozen=True, slots=True)
class Packet:
    """What raters see."""

    name: str  # short, made of the packet's content
    questions: tuple[Question, ...]
    items: tuple[Item, ...]

    @property
    def kinds(self) -> list[str]:
        """The items' kinds, in the packet's order."""
        return list(dict.fromkeys(item.kind for item in self.items))


def read_packet(directory: Path) -> Packet:
    """Read the packet in `directory`. Raises `ValueError` in one sentence if it is none."""
    try:
        packet = json.loads((directory / PACKET).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{directory} holds no {PACKET}: `dvc repro` writes it") from None
    questions = tuple(Question(**question) for question in packet["questions"])
    items = tuple(
        Item(item["item_id"], item["kind"], item["prompt"], directory / item["picture"]) for item in packet["items"]
    )
    return Packet(packet["name"], questions, items)
