"""Which MLflow holds the project's runs, and whether it answers."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lifecycle.record.privacy import redact, summarize_error
from lifecycle.record.relocation import relocate_artifacts
from lifecycle.workspace.staging import hold_lock, make_private

if TYPE_CHECKING:
    from lifecycle.record.runs import Tracking

ANSWER_SECONDS = 3.0
GATEWAY_ERRORS = (502, 503, 504)
"""What proxies answer for a server that is off."""


class TrackingDownError(ValueError):
    """The tracking server did not answer; the message says which and why, in one sentence."""


def resolve_tracking_uri(home: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the project's own SQLite file.

    Raises `TrackingDownError` for a server's address without a host, which MLflow's client would ask for a minute.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or format_sqlite_uri(home / ".mlflow" / "mlflow.db")
    if uri.startswith(("http:", "https:")) and not _has_host(uri):
        raise TrackingDownError(f"MLFLOW_TRACKING_URI is {redact(uri)}, which names no host: write http://HOST:PORT")
    return uri


def _has_host(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).hostname)
    except ValueError:  # brackets that hold no address
        return False


def format_sqlite_uri(file: Path) -> str:
    """Return the address of an SQLite file as SQLAlchemy reads it.

    Only from the first folder on that it would take for something else, so that the addresses of other places stay as
    they were, `%`, `?` and `/` are escaped: MLflow takes the address for a path and would make its folders.
    """
    text = str(file)
    odd = min((text.index(letter) for letter in "%?" if letter in text), default=len(text))
    start = text.rfind("/", 0, odd) + 1 if odd < len(text) else odd
    return f"sqlite:///{text[:start]}{text[start:].replace('%', '%25').replace('?', '%3F').replace('/', '%2F')}"


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
            _check_answer(uri)
        configure_mlflow()
        import mlflow.tracking.client  # noqa: F401  # before the lock is taken

        from lifecycle.record.runs import Tracking

        artifacts, name = None, os.environ.get("MLFLOW_EXPERIMENT_NAME", "canvas")
        with hold_lock(make_private(home / ".mlflow") / "lock"):  # two must not create the same SQLite tables at once
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                place = (home / ".mlflow").resolve()  # several checkouts may share one
                artifacts = place / "artifacts"
                relocate_artifacts(place / "mlflow.db", artifacts)
                _create_store(place / "mlflow.db", uri, artifacts)
            return Tracking.open(uri, name, artifacts.as_uri() if artifacts else None)
    except Exception as error:
        raise TrackingDownError(f"tracking at {redact(uri)} does not answer ({summarize_error(error)})") from error


def _create_store(file: Path, uri: str, artifacts: Path) -> None:
    """Create the project's own SQLite file if it is not there. MLflow would do so, too, but writes the working
    directory into a statement of SQL, which a path with both kinds of quotes breaks; an address has none."""
    if not file.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, artifacts.as_uri())  # type: ignore[no-untyped-call]


def _check_answer(uri: str) -> None:
    """Raise `ConnectionError` unless somebody answers at `uri`, by the proxies that MLflow's client would use.

    No secret is sent: whether it is let in, and by which certificates, is the client's to settle.
    """
    import requests

    parts = urlsplit(uri)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the certificate
        try:
            answer = requests.head(
                address, timeout=ANSWER_SECONDS, allow_redirects=False, verify=False, auth=lambda request: request
            )
        except (requests.exceptions.SSLError, requests.exceptions.ReadTimeout):
            return
        except requests.RequestException as error:
            cause: BaseException = error
            while (inner := cause.__cause__ or cause.__context__) is not None:
                cause = inner
            raise ConnectionError(str(cause)) from None
    if answer.status_code in GATEWAY_ERRORS:
        raise ConnectionError(f"a gateway answered {answer.status_code}")


def relocate_store(home: Path) -> None:
    """Make the folder of the project's own store if it is not there; of a project that was moved or copied bring the
    addresses in it here, as whoever opens it by `open_tracking` does."""
    with hold_lock(make_private(home / ".mlflow") / "lock"):
        place = (home / ".mlflow").resolve()
        relocate_artifacts(place / "mlflow.db", place / "artifacts")


@contextmanager
def explain_tracking_errors(uri: str) -> Iterator[None]:
    """Raise what MLflow, its store or the way to its server says as `TrackingDownError`, in one sentence."""
    configure_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # requests' errors are OSError
        raise TrackingDownError(f"tracking at {redact(uri)} is of no help ({summarize_error(error)})") from error


def configure_mlflow() -> None:
    """Set what MLflow reads when it is imported: few retries (the journal is the retry), no chatter."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    warnings.simplefilter("ignore")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
