"""The pinned inputs `ratings/`, what people said of a rating packet, and `preferences/`, what the reward model may
learn of it; and the desks at which they say it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from lifecycle.catalog import Candidates, Pins, Preferences, RatingKey, RatingPacket, Ratings
from lifecycle.ratings.packet import read_packet
from lifecycle.ratings.server import RatingServer, serving
from lifecycle.record.origin import home
from lifecycle.record.tracking import quiet, tracking_uri
from lifecycle.registry.pinned import replace, restore_empty

KEY = "key.json"


@contextmanager
def desks(root: Path, raters: Sequence[str]) -> Iterator[list[Any]]:
    """The desks (lifecycle.ratings.reviews.Desk) of `raters` before the project's packet, while the context lasts.

    The server is ours, on loopback, in front of the project's own store; or the one that MLFLOW_TRACKING_URI names.
    Raises `ValueError` in one sentence if there is no packet, no server, or a name that cannot be a rater's.
    """
    packet = read_packet(root / RatingPacket.path)
    place, uri = home(root) / ".mlflow" / "rating", tracking_uri(home(root))
    if uri.startswith(("http://", "https://")):
        yield _seated(RatingServer.of_team(place, uri), packet, raters)
    else:
        with serving(place, uri, home(root) / ".mlflow" / "artifacts") as server:
            yield _seated(server, packet, raters)


def pull(root: Path) -> list[str]:
    """Write `ratings/` of the project at `root` and its pin from what people have answered; what to tell of it.

    Judgments of other packets that are there stay. Raises `ValueError` if there is no packet or no key of it.
    """
    quiet()
    from lifecycle.ratings.reviews import Reviews

    packet = read_packet(root / RatingPacket.path)
    place = root / RatingKey.path / KEY
    if not place.is_file():
        raise ValueError(f"{place} is missing: without it nobody knows who painted what; `dvc pull` or make it again")
    key = json.loads(place.read_text(encoding="utf-8"))
    if key["name"] != packet.name:
        raise ValueError(f"the packet is {packet.name}, its key is of {key['name']}: `dvc checkout` brings both back")
    answers = [asdict(answer) for answer in Reviews.open(tracking_uri(home(root)), packet).answers()]
    table = _judgments()
    restore(root)
    fresh = table.judged(answers, key)
    known = table.read(root / Ratings.path) if (root / Ratings.path).is_dir() else []
    rows = table.merged(known, fresh, key)
    replace(Ratings.path, lambda there: table.write(there, rows), root)
    return _told(fresh, len(rows))


def learn(root: Path) -> str:
    """Add what `ratings/` says of candidates that lie here, with their pictures, to `preferences/`, and pin it; what to
    tell of it. What was known of other pictures stays. Raises `ValueError` if there is nothing to add.
    """
    for needed in (Ratings, Candidates, Pins):
        if not (root / needed.path).is_dir():
            raise ValueError(f"{needed.path} is missing: `dvc checkout` brings it back")
    table = _preferences()
    restore_preferences(root)
    known = table.read(root / Preferences.path) if (root / Preferences.path).is_dir() else []
    fresh = table.preferences(root / Ratings.path, root / Candidates.path, root / Pins.path)
    if not fresh:
        raise ValueError(
            "no judgment that counts is about the pictures in artifacts/candidates: `python -m lifecycle ratings pull` "
            "brings what people said of them"
        )
    rows = table.merged(known, fresh)
    replace(Preferences.path, lambda there: table.write(there, rows), root)
    said = sum(row["judgments"] for row in rows)
    return (
        f"preferences/ holds {said} judgments of {len(rows)} pairs or pictures, {len(fresh)} of these candidates; "
        "`dvc repro train_reward` learns from them, and what it assembles has to be rated anew"
    )


def restore(root: Path) -> bool:
    """Write the empty table in a fresh checkout whose pin names it; whether it did."""
    return restore_empty(Ratings.path, write_empty, root)


def restore_preferences(root: Path) -> bool:
    """As `restore`, of `preferences/`."""
    return restore_empty(Preferences.path, lambda place: _preferences().write(place, []), root)


def write_empty(place: Path) -> None:
    """Write the table that says that nobody has rated."""
    _judgments().write(place, [])


def _seated(server: RatingServer, packet: Any, raters: Sequence[str]) -> list[Any]:
    quiet()
    from lifecycle.ratings.reviews import Reviews

    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = server.admin
    reviews = Reviews.open(server.address, packet)
    found = []
    for rater in raters:
        server.enroll(rater)
        desk = reviews.load(rater, server.address)
        server.grant(rater, desk.experiment)
        found.append(desk)
    return found


def _judgments() -> Any:
    """The module that knows the table; by name, as stages are loaded: the lifecycle imports no evaluation."""
    return import_module("evaluation.ratings.judgments")


def _preferences() -> Any:
    """As `_judgments`."""
    return import_module("evaluation.ratings.preferences")


def _told(fresh: Sequence[dict[str, Any]], rows: int) -> list[str]:
    raters = sorted({row["rater"] for row in fresh})
    lines = [
        f"ratings/ holds {rows} judgments, {len(fresh)} of this packet; commit ratings.dvc with what you make of it"
    ]
    for rater in raters:
        own = [row for row in fresh if row["rater"] == rater]
        aside = Counter(row["set_aside"] for row in own if row["set_aside"])
        reasons = "".join(f"; {count} set aside: {why}" for why, count in sorted(aside.items()))
        lines.append(f"{rater}: {len(own) - sum(aside.values())} count{reasons}")
    return lines
