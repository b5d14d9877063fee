"""Whether tracking answers is asked on the way that MLflow's own client takes."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.record.tracking import (
    TrackingDownError,
    _check_answer,
    configure_mlflow,
    explain_tracking_errors,
    open_tracking,
    resolve_tracking_uri,
)


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy, and a server: 502 for a host named `off`, 401 for all else."""

    seen: list[tuple[str, str | None]]

    def do_HEAD(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(502 if "//off" in self.path else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OwnProxy", (Proxy,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_a_server_behind_a_proxy_answers(
    proxy: tuple[str, list[tuple[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = proxy
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    _check_answer("http://me:secret@mlflow.invalid:5000/")
    assert seen == [("http://mlflow.invalid:5000/", None)]
    with pytest.raises(ConnectionError, match="a gateway answered 502"):
        _check_answer("http://off.invalid:5000/")


def test_a_server_that_asks_for_a_password_answers(proxy: tuple[str, list[tuple[str, str | None]]]) -> None:
    _check_answer(proxy[0])
    assert proxy[1] == [("/", None)]


def test_a_server_that_is_off_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(TrackingDownError, match=r"^tracking at http://127\.0\.0\.1:9 does not answer \(.*refused\)$"):
        open_tracking(tmp_path)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "uri", ["http://", "https://", "http:", "http:/mlflow:5000", "http://:5000", "http://[", "http:///"]
)
def test_an_address_without_a_host_is_said_at_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for ask in (resolve_tracking_uri, open_tracking):
        with pytest.raises(TrackingDownError, match=r"^MLFLOW_TRACKING_URI is http.*, which names no host: write http"):
            ask(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_project_below_both_kinds_of_quotes_has_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "Anna's 12\" mugs"
    home.mkdir()
    monkeypatch.chdir(home)
    for _ in range(2):
        experiments = open_tracking(home).client.search_experiments()
        places = {experiment.name: experiment.artifact_location for experiment in experiments}
        assert places["canvas"].startswith(artifacts := (home / ".mlflow" / "artifacts").as_uri())
        assert places["Default"].startswith(artifacts)


def test_a_database_whose_driver_is_not_installed_is_one_sentence() -> None:
    configure_mlflow()
    from mlflow import MlflowClient

    uri = "mysql://me:secret@127.0.0.1:9/runs"
    says = r"^tracking at mysql://127.* is of no help \(No module named 'MySQL"
    with pytest.raises(TrackingDownError, match=says), explain_tracking_errors(uri):
        MlflowClient(uri).search_experiments()
