"""What people answer about a rating packet: the queues in which they do, and the pinned inputs that it becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import find_artifact
from lifecycle.declare.pinned import PinnedFeedback, PinnedRatings, RatingKey, RatingPacket
from lifecycle.declare.stage import Stage
from lifecycle.ratings.packet import Packet, read_packet
from lifecycle.ratings.reviews import RaterPages, Reviews
from lifecycle.ratings.server import RatingServer, start_server
from lifecycle.record.origin import find_project
from lifecycle.record.privacy import redact
from lifecycle.record.relocation import relocate_artifacts
from lifecycle.record.tracking import explain_tracking_errors, is_server, resolve_tracking_uri
from lifecycle.registry.pinned import replace_pinned, restore

KEY = "key.json"


@contextmanager
def serve_packet(root: Path, stages: Iterable[Stage[Any]], raters: Sequence[str]) -> Iterator[list[RaterPages]]:
    """Put the project's packet before `raters` and give the pages of each, while the context lasts.

    The server is ours, on loopback, in front of the project's own store; or the one that MLFLOW_TRACKING_URI names.
    Raises `ValueError` in one sentence if there is no packet, no server, or a name that cannot be a rater's.
    """
    packet = read_packet(root / find_artifact(stages, RatingPacket).path)
    place, uri = find_project(root) / ".mlflow", resolve_tracking_uri(find_project(root))
    if is_server(uri):
        yield _enroll(RatingServer.join(place / "rating", uri), packet, raters)
    else:
        relocate_artifacts(place.resolve() / "mlflow.db", place.resolve() / "artifacts")
        with start_server(place / "rating", uri, place / "artifacts") as server:
            yield _enroll(server, packet, raters)


def pull_ratings(root: Path, stages: Iterable[Stage[Any]]) -> list[str]:
    """Write the pinned ratings and their pin from what people have answered; return a summary. Nothing that is pinned
    is lost. Raises `ValueError` if there is no packet or no key of it, if nobody has answered, or if what is pinned is
    not at hand."""
    stages = tuple(stages)
    ratings = find_artifact(stages, PinnedRatings)
    packet = read_packet(root / find_artifact(stages, RatingPacket).path)
    place = root / find_artifact(stages, RatingKey).path / KEY
    if not place.is_file():
        raise ValueError(f"{place} is missing: without it nobody knows who made what; `dvc pull` or make it again")
    key = json.loads(place.read_text(encoding="utf-8"))
    if key["name"] != packet.name:
        raise ValueError(f"the packet is {packet.name}, its key is of {key['name']}: `dvc checkout` brings both back")
    before, uri = restore(ratings, root), resolve_tracking_uri(find_project(root))
    with explain_tracking_errors(uri):
        answers = [asdict(answer) for answer in Reviews.open(uri, packet).read_answers()]
    if not answers:
        raise ValueError(
            f"nobody has answered the packet {packet.name} at {redact(uri)}: {ratings.path}/ stays as it is; "
            "MLFLOW_TRACKING_URI names the server where people rate"
        )
    first, *raters = replace_pinned(
        ratings.path, lambda folder: ratings.write_ratings(folder, before, answers, key), root
    )
    return [f"{ratings.path}/ holds {first}; commit {ratings.path}.dvc with what you make of it", *raters]


def update_feedback(root: Path, stages: Iterable[Stage[Any]]) -> str:
    """Take the ratings over into the pinned feedback; return a summary. `ValueError` if there is nothing to add."""
    feedback = find_artifact(stages, PinnedFeedback)
    sources = [root / source.path for source in feedback.sources]
    for source, kind in zip(sources, feedback.sources, strict=True):
        if not source.is_dir():
            raise ValueError(f"{kind.path} is missing: `dvc checkout` brings it back")
    before = restore(feedback, root)
    summary = replace_pinned(feedback.path, lambda folder: feedback.write_feedback(folder, before, *sources), root)
    return f"{feedback.path}/ holds {summary}"


def _enroll(server: RatingServer, packet: Packet, raters: Sequence[str]) -> list[RaterPages]:
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = server.admin
    pages = []
    with explain_tracking_errors(server.address):
        reviews = Reviews.open(server.address, packet)
        for rater in raters:
            server.enroll(rater)
            server.check_identity()
            pages.append(reviews.load(rater, server.address))
            server.grant(rater, pages[-1].experiment)
    return pages
