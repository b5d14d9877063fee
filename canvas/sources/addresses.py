"""Reading a file by its path or URL through Daft, within limits, and showing an address without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from daft.io import IOConfig

SCHEMES = ("file", "http", "https", "s3", "gs")


@dataclass(frozen=True, slots=True)
class Reader:
    """How to read, with three tries; s3 and gs find their credentials in the environment, as their own tools do."""

    folder: Path  # where relative paths start
    connections: int
    timeout_seconds: float  # for a connection, and between two parts of an answer

    def locate(self, address: str) -> str:
        """Return the address, a path with its folder; `ValueError` for a scheme other than SCHEMES."""
        if "://" not in address:
            return str(self.folder / address)
        if (scheme := urlsplit(address).scheme) not in SCHEMES:
            raise ValueError(f"{scheme}:// is not supported: use a path, {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
        return address

    def config(self) -> IOConfig:
        """Build Daft's settings."""
        from daft.io import HTTPConfig, IOConfig, S3Config

        limit = round(self.timeout_seconds * 1000)
        return IOConfig(
            http=HTTPConfig(num_tries=3, connect_timeout_ms=limit, read_timeout_ms=limit, retry_initial_backoff_ms=200),
            s3=S3Config(num_tries=3, connect_timeout_ms=limit, read_timeout_ms=limit, max_connections=self.connections),
        )

    def read(self, address: str | None, max_bytes: int) -> bytes:
        """Read the file; `ValueError` in one sentence, without credentials, if it can't be had or is longer.

        One range request, so that a long file is not fetched whole, and no HEAD, which signed addresses refuse.
        """
        import daft

        if not address or not address.strip():
            raise ValueError("image is empty")
        path = self.locate(address)
        try:
            with daft.File(path, io_config=self.config(), position=0, size=max_bytes + 1).open() as file:
                data = bytes(file.read())
        except Exception as error:  # one class for missing files, refused addresses, time-outs and the rest
            raise ValueError(f"cannot fetch: {format_error(error, path)}") from None
        if len(data) > max_bytes:
            raise ValueError(f"more bytes than the limit of {max_bytes}")
        return data


def strip_credentials(address: str | None) -> str | None:
    """Return the address without user, password, query and fragment (which carry signatures)."""
    if address is None or "://" not in address:
        return address
    scheme, rest = address.split("://", 1)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def format_error(error: BaseException, address: str) -> str:
    """Format what went wrong at `address` in one line, without credentials."""
    line = " ".join(str(error).split()).replace(address, strip_credentials(address) or "")
    line = re.sub(r"\w+://[^\s`'\")]+", lambda match: strip_credentials(match.group()) or "", line)
    return line.removeprefix("DaftError::ComputeError ")[:300]
