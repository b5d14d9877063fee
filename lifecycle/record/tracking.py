"""Which MLflow holds the project's runs, and whether it answers."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lifecycle.record.redaction import redacted
from lifecycle.workspace.staging import private

if TYPE_CHECKING:
    from lifecycle.record.runs import Tracking

ANSWER_SECONDS = 3.0


class TrackingDownError(Exception):
    """The tracking server did not answer; the message says which and why, in one sentence."""


def tracking_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, or the project's own SQLite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / '.mlflow' / 'mlflow.db'}"


def connect(home: Path) -> Tracking:
    """The project's tracking; imports MLflow (2 to 3 s), but only when somebody answers.

    Raises `TrackingDownError`, within ANSWER_SECONDS for a server that is off.
    """
    uri = tracking_uri(home)
    try:
        _probe(uri)
        quiet()
        from lifecycle.record.runs import Tracking, load_mlflow

        load_mlflow()
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (home / ".mlflow" / "artifacts").as_uri()
        with _alone(home):
            return Tracking.open(uri, os.environ.get("MLFLOW_EXPERIMENT_NAME", "canvas"), artifacts)
    except Exception as error:
        reason = redacted(" ".join(str(error).split()))[:300]
        raise TrackingDownError(f"tracking at {redacted(uri)} does not answer ({reason})") from error


def run_address(uri: str, experiment: str, run_id: str) -> str:
    """Where MLflow's pages show a run; of a file store, where `make ui` serves them."""
    return f"{_pages(uri)}/experiments/{experiment}/runs/{run_id}"


def model_address(uri: str, experiment: str, model_id: str) -> str:
    """Where MLflow's pages show the files of a logged model, evidence/ among them."""
    return f"{_pages(uri)}/experiments/{experiment}/models/{model_id}/artifacts"


def _pages(uri: str) -> str:
    server = uri if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    return f"{redacted(server).rstrip('/')}/#"


def quiet() -> None:
    """Set what MLflow reads when it is imported: few retries (the journal is the retry), no chatter."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    warnings.simplefilter("ignore")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _probe(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), ANSWER_SECONDS).close()


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Two processes must not create the same SQLite tables at once."""
    with (private(home / ".mlflow") / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
