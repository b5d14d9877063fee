"""What people answer about a rating packet: the desks at which they do, and the pinned inputs that it becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import artifact_of
from lifecycle.declare.stage import PinnedFeedback, PinnedRatings, RatingKey, RatingPacket, Stage
from lifecycle.ratings.packet import read_packet
from lifecycle.ratings.server import RatingServer, serving
from lifecycle.record.origin import home
from lifecycle.record.tracking import quiet, tracking_uri
from lifecycle.registry.pinned import replace, restore

KEY = "key.json"


@contextmanager
def desks(root: Path, stages: Iterable[Stage[Any]], raters: Sequence[str]) -> Iterator[list[Any]]:
    """The desks (lifecycle.ratings.reviews.Desk) of `raters` before the project's packet, while the context lasts.

    The server is ours, on loopback, in front of the project's own store; or the one that MLFLOW_TRACKING_URI names.
    Raises `ValueError` in one sentence if there is no packet, no server, or a name that cannot be a rater's.
    """
    packet = read_packet(root / artifact_of(stages, RatingPacket).path)
    place, uri = home(root) / ".mlflow" / "rating", tracking_uri(home(root))
    if uri.startswith(("http://", "https://")):
        yield _seated(RatingServer.of_team(place, uri), packet, raters)
    else:
        with serving(place, uri, home(root) / ".mlflow" / "artifacts") as server:
            yield _seated(server, packet, raters)


def pull(root: Path, stages: Iterable[Stage[Any]]) -> list[str]:
    """Write the pinned ratings of the project at `root` and their pin from what people have answered; a summary.

    Raises `ValueError` if there is no packet or no key of it.
    """
    quiet()
    from lifecycle.ratings.reviews import Reviews

    stages = tuple(stages)
    ratings = artifact_of(stages, PinnedRatings)
    packet = read_packet(root / artifact_of(stages, RatingPacket).path)
    place = root / artifact_of(stages, RatingKey).path / KEY
    if not place.is_file():
        raise ValueError(f"{place} is missing: without it nobody knows who made what; `dvc pull` or make it again")
    key = json.loads(place.read_text(encoding="utf-8"))
    if key["name"] != packet.name:
        raise ValueError(f"the packet is {packet.name}, its key is of {key['name']}: `dvc checkout` brings both back")
    answers = [asdict(answer) for answer in Reviews.open(tracking_uri(home(root)), packet).answers()]
    before = restore(ratings, root)
    first, *raters = replace(ratings.path, lambda folder: ratings.write_answers(folder, before, answers, key), root)
    return [f"{ratings.path}/ holds {first}; commit {ratings.path}.dvc with what you make of it", *raters]


def learn(root: Path, stages: Iterable[Stage[Any]]) -> str:
    """Take the ratings over into the pinned feedback that training learns from; a summary. `ValueError` if there is
    nothing to add."""
    feedback = artifact_of(stages, PinnedFeedback)
    sources = [root / source.path for source in feedback.sources]
    for source, needed in zip(sources, feedback.sources, strict=True):
        if not source.is_dir():
            raise ValueError(f"{needed.path} is missing: `dvc checkout` brings it back")
    before = restore(feedback, root)
    result = replace(feedback.path, lambda folder: feedback.write_learnt(folder, before, *sources), root)
    return f"{feedback.path}/ holds {result}"


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
