"""A process at an address that is not its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


class Impostor(ThreadingHTTPServer):
    """Answers everything with 200 and keeps what it was asked."""

    def __init__(self, port: int = 0) -> None:
        super().__init__((HOST, port), _Answer)
        self.received: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Impostor)
        self.server.received.append(f"{self.requestline}\n{self.headers}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK")

    do_POST = do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def run_impostor(port: int = 0) -> Iterator[Impostor]:
    """An impostor that answers while the context lasts."""
    with Impostor(port) as impostor:
        threading.Thread(target=impostor.serve_forever, daemon=True).start()
        yield impostor
        impostor.shutdown()
