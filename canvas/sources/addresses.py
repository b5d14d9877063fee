"""Reading a file by its path or URL, within limits, and showing an address without its secrets.

A list comes from the params and may lie anywhere. What its rows name comes from strangers: files below the data
directory and the roots that params name, hosts at public addresses or those that params name.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from canvas.sources.downloads import DownloadRules, download
from canvas.terminal import strip_controls

if TYPE_CHECKING:
    from daft.io import IOConfig

MAX_QUOTED = 60  # characters of an address in a reason
SCHEMES = ("file", "http", "https", "s3", "gs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """How to read, with three tries; s3 and gs find their credentials in the environment, as their own tools do."""

    folder: Path  # where relative paths start
    beside: Path | None = None  # the list's folder, where rows' relative paths are looked for next
    roots: Sequence[str]  # other folders that rows may name files of; relative ones start at `folder`
    rules: DownloadRules

    @property
    def timeout_seconds(self) -> float:
        """For a connection, and between two parts of an answer."""
        return self.rules.timeout_seconds

    def locate(self, address: str) -> str:
        """Return the address, or the path that it is; `ValueError` for a scheme other than SCHEMES.

        A path is a name, whatever characters it has; in file:// addresses %20 and its like are decoded.
        """
        scheme, separator, rest = address.partition("://")
        if not separator:
            return str(self.folder / address)
        if (scheme := scheme.lower()) not in SCHEMES:
            raise ValueError(f"{scheme}:// is not supported: use a path, {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
        if scheme != "file":
            return f"{scheme}://{rest}"
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise ValueError(f"file://{host} is another machine: write file:/// and the path")
        return f"/{unquote(path)}"

    def config(self) -> IOConfig:
        """Build Daft's settings."""
        from daft.io import HTTPConfig, IOConfig, S3Config

        limit = round(self.rules.timeout_seconds * 1000)
        connections = self.rules.connections
        return IOConfig(
            http=HTTPConfig(
                num_tries=3,
                connect_timeout_ms=limit,
                read_timeout_ms=limit,
                retry_initial_backoff_ms=200,
            ),
            s3=S3Config(num_tries=3, connect_timeout_ms=limit, read_timeout_ms=limit, max_connections=connections),
        )

    def read(self, address: str | None, max_bytes: int) -> bytes:
        """Read the file that a row names; `ValueError` in one sentence, without credentials, if it can't be had, may
        not be named by a row, or is longer than `max_bytes`."""
        if not address or not address.strip():
            raise ValueError("image is empty")
        if address.startswith("data:"):
            raise ValueError("image is a data: URI: write a path or a URL, or the file's bytes in Parquet")
        if address.startswith("//") and not os.path.exists(address):  # noqa: PTH110  # as of an <img> in a page
            raise ValueError(f"image {address[:MAX_QUOTED]!r} lacks its scheme: write https: before it")
        place = self._locate_row(address)
        try:
            if place.startswith(("http://", "https://")):
                data = download(place, max_bytes, self.rules)
            elif place.startswith(("s3://", "gs://")):
                data = self._read_object(place, max_bytes)
            else:
                data = _read_file(self._find_file(place), max_bytes)
        except Exception as error:  # one class for missing files, refused addresses, time-outs and the rest
            raise ValueError(f"cannot fetch: {format_error(error, place)}") from None
        if len(data) > max_bytes:
            raise ValueError(f"more bytes than the limit of {max_bytes}")
        return data

    def is_outside(self, address: str) -> bool:
        """Tell an address elsewhere than below the folder, by its name: links in there are the folder's."""
        try:
            place = self._locate_row(address)
        except ValueError:
            return True
        folder = os.path.normpath(Path.cwd() / self.folder)
        return "://" in place or not Path(os.path.normpath(Path.cwd() / place)).is_relative_to(folder)

    def _locate_row(self, address: str) -> str:
        """Locate what a row names: a relative path below the folder, or beside the list if it is only there; with an
        accent as one letter or as two, as Windows and macOS write it."""
        if "://" in address:
            return self.locate(address)
        folders = [self.folder] if self.beside is None else [self.folder, self.beside]
        for name in (address, unicodedata.normalize("NFC", address), unicodedata.normalize("NFD", address)):
            for folder in folders:
                if os.path.exists(place := str(folder / name)):  # noqa: PTH110  # False for any bad name
                    return place
        return self.locate(address)

    def _find_file(self, path: str) -> Path:
        """Return the file, if it lies below the folder or a root; links in there are their owner's."""
        location = os.path.normpath(Path.cwd() / path)
        roots = [os.path.normpath(Path.cwd() / self.folder / root) for root in ("", *self.roots)]
        if not any(Path(location).is_relative_to(root) for root in roots):
            raise ValueError(f"{path} lies outside of {roots[0]}: name its folder in ingest.manifest.roots to allow it")
        return Path(location)

    def _read_object(self, address: str, max_bytes: int) -> bytes:
        """Read an object of s3 or gs by one range request, so that a long one is not fetched whole; of buckets that
        params name alone, as it is done with the credentials of this machine, which are not the row's."""
        if self.rules.hosts is None:
            bucket = urlsplit(address).netloc.rpartition("@")[2]
            raise ValueError(
                f"bucket {bucket!r} is read with your credentials: name it in ingest.manifest.hosts if rows may do that"
            )
        import daft

        self.rules.check_host(urlsplit(address).netloc.rpartition("@")[2])
        with daft.File(address, io_config=self.config(), position=0, size=max_bytes + 1).open() as file:
            return bytes(file.read())


def _read_file(path: Path, max_bytes: int) -> bytes:
    """Read up to one byte more than `max_bytes` of a regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or device would block, or never end
            raise ValueError(f"{path} is no file")
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        hint = ", folders are parted by / here" if "\\" in path.name else ""  # Windows
        raise ValueError(f"{str(path)[-200:]}: {error.strerror}{hint}") from None


def strip_credentials(address: str | None) -> str | None:
    """Return the address without user, password, query and fragment (which carry signatures)."""
    if address is None or "://" not in address:
        return address
    scheme, rest = address.split("://", 1)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def format_error(error: BaseException, address: str) -> str:
    """Format what went wrong at `address` in one line, without credentials; a server may have chosen its words."""
    line = " ".join(str(error).split()).replace(address, strip_credentials(address) or "")
    line = re.sub(r"\w+://[^\s`'\")]+", lambda match: strip_credentials(match.group()) or "", line)
    return strip_controls(line.removeprefix("DaftError::ComputeError "))[:300]
