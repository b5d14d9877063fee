"""The files of a list: one, or a folder of parts, here or at an address; and whether it changed.

A name is a name: no character of it makes a pattern. Parts are read in the order of their names.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar
from urllib.parse import unquote

import requests

from canvas.pins.tables import escape_pattern
from canvas.sources.addresses import Reader, format_error, strip_credentials
from canvas.sources.downloads import PART_BYTES, WHOLE, Watch, describe_cause, open_watched_session

Format = Literal["parquet", "csv", "jsonl"]
N = TypeVar("N", Path, str)
SUFFIXES = {"parquet": (".parquet",), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}
"""Names of the parts of a list in each format; other files of its folder are left alone."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4", ".br")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
CHUNK_BYTES = 2**20
GZIP = 16 + zlib.MAX_WBITS
TRIES = 3
FIRST_SERVER_FAULT = 500  # the status from which another try may help


@contextmanager
def open_list(path: str, kind: Format, reader: Reader) -> Iterator[list[Path]]:
    """Give the files of the list at `path`, in reading order, while the context lasts; a remote one is fetched.

    Raises:
        ValueError: In one sentence, without credentials, for a list that cannot be had.
    """
    public_path = strip_credentials(path)
    try:
        place = reader.locate(path)
    except ValueError as error:
        raise ValueError(f"cannot read {public_path} as {kind}: {error}") from None
    with tempfile.TemporaryDirectory(prefix="list-") as folder:
        try:
            if "://" not in place:
                files = list_parts(Path(place), kind)
            else:
                files = []
                for number, address in enumerate(_list_addresses(place, kind, reader)):
                    files.append(
                        Path(
                            folder,
                            *filter(_states_column, address.removeprefix(place).split("/")[:-1]),
                            f"{number:06d}",
                        )
                    )
                    files[-1].parent.mkdir(parents=True, exist_ok=True)
                    with files[-1].open("wb") as file:
                        _fetch(address, file, reader)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read {public_path} as {kind}: {_explain_error(error, place)}") from None
        yield files


def list_parts(path: Path, kind: Format) -> list[Path]:
    """Return the file, or the parts below the folder `path` in the order of their names; hidden ones are no parts.

    Raises `OSError` where there is none, and `ValueError` for a compressed part: the list would be read without it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not found")
    names = (part.relative_to(path) for part in path.rglob("*") if part.is_file())
    names = (name for name in names if not any(word[0] in "._" for word in name.parts))
    parts = check_parts(sorted(names, key=lambda name: name.parts), kind)
    if not parts:
        raise FileNotFoundError(f"{path} holds no file that ends in {' or '.join(SUFFIXES[kind])}")
    return [path / part for part in parts]


def check_parts(names: Sequence[N], kind: Format) -> list[N]:
    """Return those of `names`, paths or addresses, that are parts of a list; `ValueError` for a compressed one."""
    for name in names:
        stem, dot, suffix = str(name).lower().rpartition(".")
        if dot + suffix in COMPRESSED and stem.endswith(SUFFIXES[kind]):
            raise ValueError(f"part {name} is compressed and would be left out: unpack it, or move it away")
    return [name for name in names if str(name).lower().endswith(SUFFIXES[kind])]


def read_partition(part: Path) -> dict[str, str | None]:
    """Return column -> value that the folders of a part state, as Hive, Spark and DuckDB write them: category=mugs/."""
    pairs = (name.partition("=") for name in part.parent.parts if _states_column(name))
    return {unquote(column): None if value == NO_VALUE else unquote(value) for column, _, value in pairs}


def _states_column(folder: str) -> bool:
    return folder.find("=") > 0


def fingerprint_list(path: str, kind: Format, reader: Reader) -> str | None:
    """Return what tells one content of the list from another: its server's ETag, or a digest of the content.

    None for a list below the data directory, which is pinned with it. Raises as `open_list`.
    """
    place = reader.locate(path)
    if not reader.is_outside(path):
        return None
    if place.startswith(("http://", "https://")):
        try:
            with _ask(place, reader) as (answer, _):
                if etag := answer.headers.get("ETag"):
                    return f"etag {etag}"
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot ask for {strip_credentials(path)}: {_explain_error(error, place)}") from None
    digest = hashlib.md5(usedforsecurity=False)
    with open_list(path, kind, reader) as files:
        for file in files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"md5 {digest.hexdigest()}"


def _list_addresses(place: str, kind: Format, reader: Reader) -> list[str]:
    """Return the addresses of the list's parts: of a folder in a store, which ends in /, those below it."""
    if place.startswith(("http://", "https://")) or not place.endswith("/"):
        return [place]
    import daft

    paths = daft.from_glob_path(f"{escape_pattern(place)}**", io_config=reader.config()).to_pydict()["path"]
    addresses = check_parts(sorted(paths), kind)
    if not addresses:
        raise ValueError(f"it holds no file that ends in {' or '.join(SUFFIXES[kind])}")
    return addresses


def _fetch(address: str, file: BinaryIO, reader: Reader) -> None:
    """Copy what lies at `address` into `file`; memory stays flat, and each PART_BYTES come before the deadline.

    How long the whole takes is not limited: that depends on the list.
    """
    if not address.startswith(("http://", "https://")):
        import daft

        with daft.File(address, io_config=reader.config()).open() as opened:
            shutil.copyfileobj(opened, file, CHUNK_BYTES)
        return
    for left in reversed(range(TRIES)):
        try:
            with _ask(address, reader) as (answer, watch):
                size = 0  # since the deadline was set
                for part in _iterate_content(answer):
                    size += file.write(part)
                    if size >= PART_BYTES:
                        size = 0
                        watch.restart()
            return
        except requests.RequestException as error:
            if not left or (error.response is not None and error.response.status_code < FIRST_SERVER_FAULT):
                raise
            file.seek(0)
            file.truncate()
            time.sleep(0.2)


def _iterate_content(answer: requests.Response) -> Iterator[bytes]:
    """Yield the body, unpacked where the server packed it; `ValueError` where its packed form is cut off or unknown.

    What requests unpacks by itself may be cut off without a word.
    """
    coding = answer.raw.headers.pop("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise ValueError(f"the server packed it as {coding!r}, which it was not asked for")
    parts = answer.iter_content(PART_BYTES)
    if not coding.endswith("gzip"):
        yield from parts
        return
    inflater = zlib.decompressobj(GZIP)
    for packed in parts:
        while packed:
            if inflater.eof:  # another member follows
                inflater = zlib.decompressobj(GZIP)
            try:
                yield inflater.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(f"the server says that it is gzip, but it cannot be unpacked ({error})") from None
            packed = inflater.unconsumed_tail or inflater.unused_data
    if not inflater.eof:
        raise ValueError("the server's gzip is cut off")


def _explain_error(error: BaseException, place: str) -> str:
    """Return what went wrong, without credentials: of a failed request its first cause."""
    if isinstance(error, requests.RequestException):
        error = ValueError(describe_cause(error))
    return format_error(error, place)


@contextmanager
def _ask(address: str, reader: Reader) -> Iterator[tuple[requests.Response, Watch]]:
    """Give the answer of a server that has what was asked for, and the deadline of its next part."""
    headers = {"User-Agent": reader.rules.user_agent, "Accept-Encoding": "gzip"}
    watch = Watch(reader.rules.deadline_seconds, public_only=False)  # params may name any machine
    with watch, open_watched_session() as session:
        try:
            answer = session.get(address, headers=headers, stream=True, timeout=reader.timeout_seconds)
            if answer.status_code not in WHOLE:
                raise requests.HTTPError(f"the server answers {answer.status_code} {answer.reason}", response=answer)
            yield answer, watch
        except (requests.RequestException, OSError):
            watch.check()
            raise
        watch.check()
