"""Which MLflow holds the project's runs, and whether it answers."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lifecycle.record.privacy import redact, summarize_error
from lifecycle.workspace.staging import hold_lock, make_private

if TYPE_CHECKING:
    from lifecycle.record.runs import Tracking

ANSWER_SECONDS = 3.0


class TrackingDownError(ValueError):
    """The tracking server did not answer; the message says which and why, in one sentence."""


def resolve_tracking_uri(home: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's own SQLite file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / '.mlflow' / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Tell a server's address from that of a database."""
    return uri.startswith(("http://", "https://"))


def open_tracking(home: Path) -> Tracking:
    """Open the project's tracking; imports MLflow (2 to 3 s), but only when somebody answers.

    Raises `TrackingDownError`, within ANSWER_SECONDS for a server that is off.
    """
    uri = resolve_tracking_uri(home)
    try:
        if is_server(uri):
            parts = urlsplit(uri)
            address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection(address, ANSWER_SECONDS).close()
        configure_mlflow()
        import mlflow.tracking.client  # noqa: F401  # before the lock is taken

        from lifecycle.record.runs import Tracking

        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (home / ".mlflow" / "artifacts").as_uri()
        with hold_lock(make_private(home / ".mlflow") / "lock"):  # two must not create the same SQLite tables at once
            return Tracking.open(uri, os.environ.get("MLFLOW_EXPERIMENT_NAME", "canvas"), artifacts)
    except Exception as error:
        raise TrackingDownError(f"tracking at {redact(uri)} does not answer ({summarize_error(error)})") from error


def configure_mlflow() -> None:
    """Set what MLflow reads when it is imported: few retries (the journal is the retry), no chatter."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    warnings.simplefilter("ignore")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
