"""An MLflow server on loopback with names and passwords, in front of the project's own store.

Its port is remembered, so that raters' links go on working; whoever sits on that port meanwhile could ask for the
passwords. So nothing is sent before the operating system says that the socket listening there belongs to the server
that this process started: no other process can answer at the address while it is open.
"""

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from lifecycle.record.tracking import format_sqlite_uri
from lifecycle.workspace.staging import make_private, write_atomically

ADMIN = "admin"
HOST = "127.0.0.1"
LOG = "server.log"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
START_SECONDS = 300.0
ANSWER_SECONDS = 60.0

WSGI = ("--workers", "1", "--gunicorn-opts", "--threads 8 --timeout 120 --graceful-timeout 2 --no-control-socket")
"""Under gunicorn MLflow serves its tracking pages alone. Under uvicorn, its default, it would also bring the assistant,
which may run commands on this machine for whoever sits at it, or comes through a tunnel to it."""

SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {users}
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
    def load(cls, place: Path) -> Secrets:
        """Load those of an earlier server in `place`, so that links go on working, or make new ones."""
        try:
            return cls(place, **json.loads((place / "secrets.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            (place / "users.db").unlink(missing_ok=True)  # nobody knows its passwords any more
            with socket.create_server((HOST, 0)) as probe:
                port = int(probe.getsockname()[1])
            return cls(place, port, secrets.token_urlsafe(32))

    def get_password(self, name: str) -> str:
        """Return the password of `name`, made on first use."""
        if name not in self.passwords:
            self.passwords[name] = secrets.token_urlsafe(12)
            content = {"port": self.port, "flask": self.flask, "passwords": self.passwords}
            write_atomically(self.place / "secrets.json", json.dumps(content))
        return self.passwords[name]


@dataclass(frozen=True, slots=True)
class RatingServer:
    """A server that answers, and who may add raters to it."""

    address: str
    secrets: Secrets
    admin: tuple[str, str]  # name, password
    pid: int | None = None  # of the process that we started; None: somebody else's server

    @classmethod
    def join(cls, place: Path, address: str) -> RatingServer:
        """Use a server that somebody else runs, with names and passwords; ours as its admin are in the environment,
        where MLflow reads them. Raises `ValueError` if they are not."""
        try:
            admin = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is not set: who adds raters to {address}?") from None
        return cls(address.rstrip("/"), Secrets.load(make_private(place)), admin)

    def check_identity(self) -> None:
        """Raise `ValueError` unless the server that we started still holds its port; before every password that is
        sent. Somebody else's server proves itself by the certificate of its https address."""
        if self.pid is not None and not is_listening(self.pid, self.secrets.port):
            raise ValueError(
                f"the rating server no longer holds port {self.secrets.port}, so no password was sent: try again, "
                f"{self.secrets.place / LOG} says why it stopped"
            )

    def enroll(self, rater: str) -> None:
        """Let `rater` sign in. Raises `ValueError` for a name that cannot be one."""
        if not NAME.fullmatch(rater) or rater == ADMIN:
            raise ValueError(f"{rater!r} cannot be a rater's name: use lower-case letters, digits, - and _")
        user = self._call("GET", "2.0/mlflow/users/get", params={"username": rater})
        if user.status_code == requests.codes.not_found:
            body = {"username": rater, "password": self.secrets.get_password(rater)}
            self._call("POST", "2.0/mlflow/users/create", json=body).raise_for_status()

    def grant(self, rater: str, experiment: str) -> None:
        """Let `rater` work in `experiment`."""
        body = {"username": rater, "resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
        self._call("POST", "3.0/mlflow/users/permissions/grant", json=body).raise_for_status()

    def _call(self, method: str, endpoint: str, **options: dict[str, str]) -> requests.Response:
        self.check_identity()
        address = f"{self.address}/api/{endpoint}"
        return requests.request(method, address, auth=self.admin, timeout=ANSWER_SECONDS, **options)  # type: ignore[arg-type]


@contextmanager
def start_server(place: Path, store: str, artifacts: Path) -> Iterator[RatingServer]:
    """Run a server over `store` (an address of MLflow's), while the context lasts; `place` keeps its secrets and log.
    Raises `ValueError` if it does not come up, or if another process has its port; that one is sent nothing."""
    server_secrets, log = Secrets.load(make_private(place)), place / LOG
    _check_port(server_secrets.port)
    bypass_proxies()
    settings = place / "auth.ini"
    users = format_sqlite_uri(place / "users.db").replace("%", "%%")  # configparser reads a single one as a reference
    settings.write_text(SETTINGS.format(users=users, admin=ADMIN), encoding="utf-8")
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *WSGI]
    command += ["--host", HOST, "--port", str(server_secrets.port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", artifacts.absolute().as_uri()]
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": server_secrets.get_password(ADMIN),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": server_secrets.flask,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for_server(server_secrets.port, process, log)
        admin = ADMIN, server_secrets.get_password(ADMIN)
        yield RatingServer(f"http://{HOST}:{server_secrets.port}", server_secrets, admin, process.pid)
    finally:
        _stop(process)


def wait_for_server(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `process` itself answers at `port`; whoever else listens there is sent nothing."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            _check_port(port)
            raise ValueError(f"the rating server stopped with code {process.returncode}: {log} says why")
        if is_listening(process.pid, port):
            with suppress(requests.RequestException):
                if requests.get(f"http://{HOST}:{port}/health", timeout=5).ok:
                    return
        time.sleep(0.2)
    raise ValueError(f"the rating server did not answer within {START_SECONDS:.0f} s: {log} says why")


def is_listening(pid: int, port: int) -> bool:
    """Tell whether the socket that listens at `port` of HOST belongs to the process or one that it started."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    for member in family:
        with suppress(psutil.Error):  # it may end while we ask
            for connection in member.net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr) == (HOST, port):
                    return True
    return False


def _check_port(port: int) -> None:
    """Raise `ValueError` if a process holds `port`."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        raise ValueError(
            f"port {port}, where raters' links lead, is in use by another process{_name_holder(port)}, so no password "
            "was sent: end that process, be it a `rate` that still runs, and try again"
        ) from None


def _name_holder(port: int) -> str:
    """Return " (pid NUMBER)" of who listens at `port`; "" where the system keeps it from us."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" (pid {connection.pid})"
    return ""


def bypass_proxies() -> None:
    """Keep this process's requests to HOST, with their passwords, from the proxy that the environment may name."""
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if exempt != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (exempt, HOST)))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which are in its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
