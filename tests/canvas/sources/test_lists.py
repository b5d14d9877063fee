"""A name is a name, here and at an address; a list that changed is seen."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from canvas.sources.addresses import Reader
from canvas.sources.downloads import DownloadRules
from canvas.sources.lists import _list_addresses, fingerprint_list, list_parts, open_list, read_partition


class Server(http.server.ThreadingHTTPServer):
    """Serves one list; `failures` answers are cut short first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = b"photo\na.jpg\n"
        self.etag: str | None = None
        self.failures = 0
        self.status = 200
        self.coding: str | None = None
        self.drips = False  # a byte at a time, without an end

    @property
    def address(self) -> str:
        return f"http://me:secret@127.0.0.1:{self.server_port}/list.csv?key=secret"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        if self.server.coding:
            self.send_header("Content-Encoding", self.server.coding)
        if self.server.drips:
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            return
        self.send_header("Content-Length", str(len(self.server.content)))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        if self.server.failures:
            self.server.failures -= 1
            self.wfile.write(self.server.content[:3])
            return
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    (tmp_path / "data").mkdir()
    rules = DownloadRules(hosts=None, timeout_seconds=2.0, deadline_seconds=5.0, user_agent="lists", connections=1)
    return Reader(folder=tmp_path / "data", roots=[], rules=rules)


NAMES = ["catalogue[1].csv", "cat*.csv", "a?b.csv", "50% off.csv", "a b.csv", "a%20b.csv", "{x}.csv", "größe.csv"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(reader: Reader, name: str) -> None:
    for other in ("catalogue1.csv", "cat1.csv", "axb.csv", "x.csv", "a b.csv"):
        (reader.folder / other).write_text("another")
    file = reader.folder / name
    file.write_text("this one")
    for path in (name, str(file), file.as_uri(), file.as_uri().replace("file:///", "FILE://localhost/")):
        with open_list(path, "csv", reader) as files:
            assert [part.read_text() for part in files] == ["this one"], path
        assert reader.read(path, 100) == b"this one"


def test_another_machines_file_is_refused(reader: Reader) -> None:
    with pytest.raises(ValueError, match="file://host is another machine: write file:///"):
        reader.locate("file://host/a.csv")


def test_parts_are_read_in_the_order_of_their_names(reader: Reader) -> None:
    folder = reader.folder / "parts[1]"
    names = ["part-10.parquet", "part-2.parquet", "b/part-0.parquet", "part-00.parquet"]
    for name in [*names, "_SUCCESS", "_metadata.parquet", ".part.parquet", "_temporary/part-1.parquet", "note.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    parts = [part.relative_to(folder).as_posix() for part in list_parts(folder, "parquet")]
    assert parts == ["b/part-0.parquet", "part-00.parquet", "part-10.parquet", "part-2.parquet"]
    with pytest.raises(FileNotFoundError, match=r"holds no file that ends in \.csv"):
        list_parts(folder, "csv")
    (folder / "PART-3.PARQUET").write_text("x")
    assert len(list_parts(folder, "parquet")) == 5
    (folder / "part-4.parquet.gz").write_text("x")
    with pytest.raises(ValueError, match=r"part part-4\.parquet\.gz is compressed and would be left out: unpack it"):
        list_parts(folder, "parquet")


@pytest.mark.usefixtures("engine")
def test_parts_of_a_store_are_listed_by_name(reader: Reader) -> None:
    folder = reader.folder / "parts[1]"
    for name in ("b/2.parquet", "1.parquet", "note.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (reader.folder / "parts1").mkdir()
    (reader.folder / "parts1/9.parquet").write_text("of another folder")
    addresses = _list_addresses(f"file://{folder}/", "parquet", reader)
    assert [address.rpartition("parts[1]/")[2] for address in addresses] == ["1.parquet", "b/2.parquet"]


def test_a_remote_list_is_fetched_whole_or_refused(server: Server, reader: Reader) -> None:
    server.failures = 2
    with open_list(server.address, "csv", reader) as files:
        assert [file.read_bytes() for file in files] == [server.content]
    assert not files[0].exists()
    server.failures = 3
    with pytest.raises(ValueError, match=r"cannot read http://127.*list\.csv as csv: ") as caught:
        open_list(server.address, "csv", reader).__enter__()
    assert "secret" not in str(caught.value)
    server.status = 403
    with pytest.raises(ValueError, match="the server answers 403 Forbidden"):
        open_list(server.address, "csv", reader).__enter__()


@pytest.mark.parametrize("status", [202, 204, 206, 304])
def test_an_answer_without_the_list_is_no_list(server: Server, reader: Reader, status: int) -> None:
    server.status = status
    with pytest.raises(ValueError, match=f"cannot read http://127.*: the server answers {status} "):
        open_list(server.address, "csv", reader).__enter__()
    with pytest.raises(ValueError, match=f"cannot ask for http://127.*: the server answers {status} "):
        fingerprint_list(server.address, "csv", reader)


def test_a_packed_list_is_unpacked_whole_or_refused(server: Server, reader: Reader) -> None:
    plain = b"photo\n" + b"".join(b"%d.jpg\n" % number for number in range(30_000))
    server.content, server.coding = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]), "gzip"
    with open_list(server.address, "csv", reader) as files:
        assert files[0].read_bytes() == plain
    for content, coding, says in (
        (server.content[:-9], "gzip", "the server's gzip is cut off"),
        (server.content[:40], "x-gzip", "the server's gzip is cut off"),
        (plain, "gzip", "it cannot be unpacked"),
        (plain, "br", "the server packed it as 'br', which it was not asked for"),
    ):
        server.content, server.coding = content, coding
        with pytest.raises(ValueError, match=says):
            open_list(server.address, "csv", reader).__enter__()


def test_a_list_that_drips_is_left(server: Server, reader: Reader) -> None:
    server.drips = True
    hasty = replace(reader, rules=replace(reader.rules, deadline_seconds=1.0))
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot read http://127.*: it was not here within 1 s"):
        open_list(server.address, "csv", hasty).__enter__()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["http://[::1", "https://host:99999/list.csv", "http:///list.csv"])
def test_what_is_no_address_is_said(reader: Reader, address: str) -> None:
    with pytest.raises(ValueError, match=r"that is no address of a web server: write it as https://HOST/PATH$"):
        open_list(address, "csv", reader).__enter__()


def test_folders_state_columns() -> None:
    part = Path("/data/year=2024/category=mugs%20%26%20cups/board=__HIVE_DEFAULT_PARTITION__/=x/a=b.parquet")
    assert read_partition(part) == {"year": "2024", "category": "mugs & cups", "board": None}


def test_a_list_that_changed_has_another_fingerprint(server: Server, reader: Reader, tmp_path: Path) -> None:
    first = fingerprint_list(server.address, "csv", reader)
    assert first == fingerprint_list(server.address, "csv", reader)
    server.content += b"b.jpg\n"
    assert (second := fingerprint_list(server.address, "csv", reader)) not in (None, first)
    server.etag = '"v1"'
    assert fingerprint_list(server.address, "csv", reader) == 'etag "v1"' != second

    (reader.folder / "list.csv").write_text("photo\n")
    assert fingerprint_list("list.csv", "csv", reader) is None, "data.dvc pins it"
    outside = tmp_path / "list.csv"
    outside.write_text("photo\na.jpg\n")
    assert fingerprint_list(str(outside), "csv", reader) == fingerprint_list("../list.csv", "csv", reader) == first
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="cannot ask for http://127") as caught:
        fingerprint_list(server.address, "csv", reader)
    assert "secret" not in str(caught.value)
