"""An MLflow server on loopback with names and passwords, in front of the project's own store."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from lifecycle.workspace.staging import private

ADMIN = "admin"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
START_SECONDS = 300.0
ANSWER_SECONDS = 60.0

WSGI = ("--workers", "1", "--gunicorn-opts", "--threads 8 --timeout 120 --graceful-timeout 2 --no-control-socket")
"""Under gunicorn MLflow serves its tracking pages alone. Under uvicorn, its default, it would also bring the assistant,
which may run commands on this machine for whoever sits at it, or comes through a tunnel to it."""

SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{users}
admin_username = {admin}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 300
"""
"""Who has no grant sees nothing. Passwords are hashed slowly on purpose: without the cache, at every request."""


@dataclass(slots=True)
class Secrets:
    """What the server and its raters need to know each other; stays in a file that only its owner can read."""

    place: Path
    port: int
    flask: str
    passwords: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Path) -> Secrets:
        """Those of an earlier server in `place`, or new ones: names and port last, so that links go on working."""
        try:
            return cls(place, **json.loads((place / "secrets.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            (place / "users.db").unlink(missing_ok=True)  # nobody knows its passwords any more
            made = cls(place, _free_port(), secrets.token_urlsafe(32))
            made.password(ADMIN)
            return made

    def password(self, name: str) -> str:
        """The password of `name`, made on first use."""
        if name not in self.passwords:
            self.passwords[name] = secrets.token_urlsafe(12)
            self._save()
        return self.passwords[name]

    def _save(self) -> None:
        partial = self.place / "secrets.partial"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"port": self.port, "flask": self.flask, "passwords": self.passwords}, file)
        partial.replace(self.place / "secrets.json")


@dataclass(frozen=True, slots=True)
class RatingServer:
    """A server that answers, and who may add raters to it."""

    address: str
    secrets: Secrets
    admin: tuple[str, str]  # name, password

    @classmethod
    def of_team(cls, place: Path, address: str) -> RatingServer:
        """A server that somebody else runs, with names and passwords; ours as its admin are in the environment,
        where MLflow reads them. Raises `ValueError` if they are not."""
        try:
            admin = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is not set: who adds raters to {address}?") from None
        return cls(address.rstrip("/"), Secrets.of(private(place)), admin)

    def enroll(self, rater: str) -> None:
        """Let `rater` sign in. Raises `ValueError` for a name that cannot be one."""
        if not NAME.fullmatch(rater) or rater == ADMIN:
            raise ValueError(f"{rater!r} cannot be a rater's name: use lower-case letters, digits, - and _")
        known = self._call("GET", "2.0/mlflow/users/get", params={"username": rater})
        if known.status_code == requests.codes.not_found:
            body = {"username": rater, "password": self.secrets.password(rater)}
            self._call("POST", "2.0/mlflow/users/create", json=body).raise_for_status()

    def grant(self, rater: str, experiment: str) -> None:
        """Let `rater` work in `experiment`."""
        self._call(
            "POST",
            "3.0/mlflow/users/permissions/grant",
            json={
                "username": rater,
                "resource_type": "experiment",
                "resource_id": experiment,
                "permission": "EDIT",
            },
        ).raise_for_status()

    def _call(self, method: str, endpoint: str, **options: dict[str, str]) -> requests.Response:
        return requests.request(
            method,
            f"{self.address}/api/{endpoint}",
            auth=self.admin,
            timeout=ANSWER_SECONDS,
            **options,  # type: ignore[arg-type]
        )


@contextmanager
def serving(place: Path, store: str, artifacts: Path) -> Iterator[RatingServer]:
    """A server over `store` (an address of MLflow's), while the context lasts; `place` keeps its secrets and log.

    Raises `ValueError` if it does not come up.
    """
    known = Secrets.of(private(place))
    settings = place / "auth.ini"
    settings.write_text(SETTINGS.format(users=place / "users.db", admin=ADMIN), encoding="utf-8")
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *WSGI]
    command += ["--host", "127.0.0.1", "--port", str(known.port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": known.password(ADMIN),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": known.flask,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    server = RatingServer(f"http://127.0.0.1:{known.port}", known, (ADMIN, known.password(ADMIN)))
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(server.address, process, place / "server.log")
            yield server
        finally:
            _stop(process)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ValueError(f"the rating server stopped with code {process.returncode}: {log} says why")
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise ValueError(f"the rating server did not answer within {START_SECONDS:.0f} s: {log} says why")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The server's workers are in its session: they end with it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
