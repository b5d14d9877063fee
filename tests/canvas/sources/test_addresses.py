"""What rows may name: files of the data directory, hosts at public addresses, within bytes and seconds."""

from __future__ import annotations

import http.server
import os
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canvas.sources.addresses import Reader
from canvas.sources.downloads import DownloadRules, check_public

DATA = b"\x89PNG and what follows" * 100
RAW = {
    "chunk-line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff;",
    "terminal": b"\x1b]0;owned\x07\r\n\r\n",
}
"""Answers that are no HTTP, or never a chunk."""


def build_reader(folder: Path, **changes: Any) -> Reader:
    rules = {"hosts": None, "timeout_seconds": 2.0, "deadline_seconds": 5.0, "user_agent": "canvas", "connections": 2}
    roots = changes.pop("roots", [])
    return Reader(folder=folder, roots=roots, rules=DownloadRules(**rules | changes))


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as its path says."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", rest)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "slow-head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self.close_connection = True
            self.send_body("dripping")
        elif kind in RAW:
            self.wfile.write(RAW[kind])
            self.close_connection = True
            self.send_body("endless" if kind == "chunk-line" else kind)
        elif kind == "http:":  # asked as a proxy
            self.send_error(404)
        elif kind.isdigit():
            self.send_error(int(kind))
        else:
            self.send_response(200)
            if kind == "whole":
                self.send_header("Content-Length", str(len(DATA)))
            elif kind == "cut":
                self.send_header("Content-Length", str(2 * len(DATA)))
            elif kind == "long":
                self.send_header("Content-Length", str(10**12))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self.send_body(kind)

    def send_body(self, kind: str) -> None:
        try:
            self.wfile.write(DATA)
            while kind in ("endless", "dripping"):
                time.sleep(0.1 if kind == "dripping" else 0)
                self.wfile.write(b"x" if kind == "dripping" else DATA)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    seen: list[str] = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OwnServer", (Server,), {"seen": seen}))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", seen
    running.shutdown()
    running.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a file and a pipe; a secret beside it."""
    data = tmp_path / "data"
    (data / "photos").mkdir(parents=True)
    (data / "photos" / "a b.png").write_bytes(DATA)
    (tmp_path / "secret.png").write_bytes(DATA)
    (tmp_path / "data-of-others").mkdir()
    (tmp_path / "data-of-others" / "a.png").write_bytes(DATA)
    os.mkfifo(data / "pipe.png")
    return data


def test_files_of_the_data_directory_are_read(folder: Path) -> None:
    reader = build_reader(folder)
    for address in (
        "photos/a b.png",
        "photos/../photos/a b.png",
        str(folder / "photos" / "a b.png"),
        (folder / "photos" / "a b.png").as_uri(),
        f"file://localhost{folder}/photos/a%20b.png",
    ):
        assert reader.read(address, 10**6) == DATA, address


def test_an_accent_is_one_letter_or_two(folder: Path) -> None:
    """As an archive of macOS and a list of Windows write the same name; where both files are there, each is its own."""
    reader = build_reader(folder)
    composed, decomposed = (unicodedata.normalize(form, "tasse-grün.png") for form in ("NFC", "NFD"))
    (folder / "photos" / decomposed).write_bytes(b"decomposed")
    assert reader.read(f"photos/{composed}", 99) == b"decomposed"
    (folder / "photos" / composed).write_bytes(b"composed")
    assert reader.read(f"photos/{composed}", 99) == b"composed"
    assert reader.read(f"photos/{decomposed}", 99) == b"decomposed"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("photos\\a.png", "No such file or directory, folders are parted by / here"),
        ("../secret.png", "lies outside of"),
        ("photos/../../secret.png", "lies outside of"),
        ("../data-of-others/a.png", "lies outside of .*name its folder in ingest.manifest.roots"),
        ("/etc/hostname", "lies outside of"),
        ("file:///etc/hostname", "lies outside of"),
        ("file:///%2e%2e/etc/hostname", "lies outside of"),
        ("file:///x%3A//../../etc/hostname", "lies outside of"),
        ("pipe.png", "is no file"),
        ("photos", "is no file"),
        ("photos/none.png", "No such file"),
        ("a\0b.png", "null"),
        ("x" * 5000, "too long"),
    ],
)
def test_other_files_are_refused(folder: Path, address: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^cannot fetch: .*{says}") as caught:
        build_reader(folder).read(address, 10**6)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("data:image/png;base64," + "A" * 999, "image is a data: URI: write a path or a URL, or the file's bytes in P"),
        ("//cdn.shop.com/a.png", "image '//cdn.shop.com/a.png' lacks its scheme: write https: before it"),
    ],
)
def test_addresses_of_web_pages_are_named(folder: Path, address: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        build_reader(folder).read(address, 10**6)
    assert len(str(caught.value)) < 99


def test_a_file_of_another_machine_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="file://elsewhere is another machine: write file:/// and the path"):
        build_reader(folder).read("file://elsewhere/a.png", 10**6)


@pytest.mark.parametrize("address", ["s3://private/a.png", "gs://private/a.png", "S3://me@private/a.png"])
def test_rows_do_not_use_the_credentials_of_this_machine(folder: Path, address: str) -> None:
    with pytest.raises(ValueError, match=r"^cannot fetch: bucket 'private' is read with your credentials"):
        build_reader(folder).read(address, 10**6)
    with pytest.raises(ValueError, match="host 'private' is not among ingest"):
        build_reader(folder, hosts=["images"]).read(address, 10**6)


def test_a_root_of_the_params_opens_its_files(folder: Path) -> None:
    reader = build_reader(folder, roots=["../data-of-others"])
    assert reader.read("../data-of-others/a.png", 10**6) == DATA
    with pytest.raises(ValueError, match="lies outside"):
        reader.read("../secret.png", 10**6)


def test_a_reader_stops_at_the_limit(folder: Path) -> None:
    reader = build_reader(folder)
    assert reader.read("photos/a b.png", len(DATA)) == DATA
    with pytest.raises(ValueError, match=f"more bytes than the limit of {len(DATA) - 1}"):
        reader.read("photos/a b.png", len(DATA) - 1)


def test_only_public_addresses_are_asked_unless_params_name_the_host(
    folder: Path, server: tuple[str, list[str]]
) -> None:
    address, seen = server
    for refused in (address, address.replace("127.0.0.1", "localhost"), address.replace("127.0.0.1", "127.1")):
        with pytest.raises(ValueError, match=r"is at .*, which is no public address"):
            build_reader(folder).read(f"{refused}/whole", 10**6)
    assert seen == []
    assert build_reader(folder, hosts=["127.0.0.1"]).read(f"{address}/whole", 10**6) == DATA
    with pytest.raises(ValueError, match=r"host '127\.0\.0\.1' is not among ingest\.manifest\.hosts"):
        build_reader(folder, hosts=["images.shop.com", "*.cdn.com"]).read(f"{address}/whole", 10**6)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://localhost:{port}/whole", "host 'localhost' is not among"),
        ("file:///etc/hostname", "a redirect leads to file://"),
        ("http://169.254.169.254/latest", "is not among"),
        ("/redirect//redirect//redirect//redirect//redirect//redirect//whole", "more than 5 redirects"),
    ],
)
def test_redirects_are_checked_like_the_address(
    folder: Path, server: tuple[str, list[str]], target: str, says: str
) -> None:
    address, _ = server
    reader = build_reader(folder, hosts=["127.0.0.1"])
    with pytest.raises(ValueError, match=says):
        reader.read(f"{address}/redirect/{target.format(port=address.rpartition(':')[2])}", 10**6)
    assert reader.read(f"{address}/redirect//whole", 10**6) == DATA


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b:1::10.0.0.1", False),
        ("::127.0.0.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_a_public_address_is(address: str, public: bool) -> None:
    if public:
        check_public("host", address)
    else:
        with pytest.raises(ValueError, match="no public address"):
            check_public("host", address)


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 416, 429, 500, 503])
def test_the_reason_names_the_status(folder: Path, server: tuple[str, list[str]], status: int) -> None:
    address, seen = server
    with pytest.raises(ValueError, match=f"^cannot fetch: the server answered {status} "):
        build_reader(folder, hosts=["127.0.0.1"]).read(f"{address}/{status}", 10**6)
    assert len(seen) == (3 if status in (429, 500, 503) else 1)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("endless", "more bytes than the limit of 100000"),
        ("long", "more bytes than the limit of 100000"),
        ("cut", r"^cannot fetch: .*\d+ more expected"),
        ("chunk-line", r"^cannot fetch: .*got more than 65536 bytes when reading chunk"),
        ("terminal", "^cannot fetch: \N{REPLACEMENT CHARACTER}.0;owned\N{REPLACEMENT CHARACTER}$"),
    ],
)
def test_replies_of_another_length_than_said(folder: Path, server: tuple[str, list[str]], kind: str, says: str) -> None:
    """Found by their bytes, long before the deadline, which leaves a slow machine its time."""
    with pytest.raises(ValueError, match=says):
        build_reader(folder, hosts=["127.0.0.1"], deadline_seconds=60.0).read(f"{server[0]}/{kind}", 100_000)


@pytest.mark.parametrize("kind", ["dripping", "slow-head"])
def test_replies_that_do_not_end(folder: Path, server: tuple[str, list[str]], kind: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"it was not here within 1 s"):
        build_reader(folder, hosts=["127.0.0.1"], deadline_seconds=1.0).read(f"{server[0]}/{kind}", 100_000)
    assert 1 <= time.monotonic() - started < 10


def test_a_server_that_says_nothing_is_left(folder: Path) -> None:
    with http.server.socketserver.TCPServer(("127.0.0.1", 0), None) as silent:  # type: ignore[arg-type]
        reader = build_reader(folder, hosts=["127.0.0.1"], timeout_seconds=0.2)
        with pytest.raises(ValueError, match=r"cannot fetch: no answer for 0\.2 s"):
            reader.read(f"http://127.0.0.1:{silent.server_address[1]}/a.png", 1000)


def test_a_proxy_of_the_environment_is_asked(
    folder: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = server
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ValueError, match="the server answered 404"):
        build_reader(folder).read("http://images.invalid/a.png", 10**6)
    assert seen == ["http://images.invalid/a.png"]
    with pytest.raises(ValueError, match="no public address"):
        build_reader(folder).read("http://10.0.0.1/a.png", 10**6)
    assert len(seen) == 1
