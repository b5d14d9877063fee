"""Passwords go to nobody but the rating server that we started: real processes at its port, and what they receive."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from lifecycle.ratings.server import HOST, RatingServer, Secrets, bypass_proxies, is_listening, wait_for_server
from tests.lifecycle.conftest import NOBODY, Project
from tests.lifecycle.impostor import Impostor, run_impostor
from tests.lifecycle.rating import write_rating_packet

LISTEN = (
    "import socket, time; held = socket.create_server(('127.0.0.1', 0)); print(held.getsockname()[1], flush=True); "
    "time.sleep(60)"
)


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    with run_impostor() as made:
        yield made


def remember_port(place: Path, port: int) -> None:
    """The secrets of an earlier server."""
    place.mkdir(parents=True)
    content = {"port": port, "flask": "flask-secret", "passwords": {"admin": "admin-secret"}}
    (place / "secrets.json").write_text(json.dumps(content))


def test_who_holds_the_remembered_port_is_sent_nothing(tmp_path: Path, impostor: Impostor) -> None:
    project = Project(tmp_path)
    write_rating_packet(tmp_path)
    remember_port(tmp_path / ".mlflow" / "rating", impostor.port)
    refused = project.lifecycle("rate", "anna")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"port {impostor.port}, where raters' links lead, is in use by another process")
    assert "no password was sent: end that process" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "secret" not in refused.stderr
    assert impostor.received == []


def test_who_takes_the_port_while_the_server_starts_is_sent_nothing(tmp_path: Path, impostor: Impostor) -> None:
    """The port was free when it was looked at; the server then finds it taken, and stops."""
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(1)"])
    with pytest.raises(ValueError, match=rf"port {impostor.port}, .* in use by another process \(pid {os.getpid()}\)"):
        wait_for_server(impostor.port, server, tmp_path / "server.log")
    assert impostor.received == []


def test_a_server_that_is_gone_is_sent_nothing_more(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    server = RatingServer(f"http://{HOST}:{port}", Secrets(tmp_path, port, ""), ("admin", "secret"), process.pid)
    server.check_identity()
    process.terminate()
    process.wait()
    with run_impostor(port) as impostor:
        with pytest.raises(ValueError, match=f"the rating server no longer holds port {port}, so no password was sent"):
            server.enroll("anna")
        assert impostor.received == []


def test_a_listener_is_told_by_its_process() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}])"
    for script in (LISTEN, parent):  # MLflow's server is a child of the process that we start
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert is_listening(process.pid, port)
            assert not is_listening(process.pid, port + 1)
        finally:
            for child in psutil.Process(process.pid).children():
                child.terminate()
            process.terminate()
            process.wait()
        assert not is_listening(process.pid, port)
    with socket.create_server((HOST, 0)) as ours:
        assert is_listening(os.getpid(), ours.getsockname()[1])
        stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        assert not is_listening(stranger.pid, ours.getsockname()[1])
        stranger.terminate()
        stranger.wait()


@pytest.mark.parametrize(
    ("before", "after"), [({}, HOST), ({"NO_PROXY": "corp"}, f"corp,{HOST}"), ({"no_proxy": "*"}, "*")]
)
def test_no_proxy_is_given_the_passwords(
    before: dict[str, str], after: str, impostor: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://{HOST}:{impostor.port}")
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    bypass_proxies()
    assert os.environ["no_proxy"] == after
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{NOBODY}/health", auth=("admin", "secret"), timeout=5)
    assert impostor.received == []
