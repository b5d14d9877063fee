"""What must not leave the machine: no tool calls home, and no secret reaches a record or a log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

TELEMETRY_OFF = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "EVIDENTLY_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DISABLE_VERSION_CHECK": "1",  # litdata
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_PASSWORD = re.compile(r"(?<=://)[^/@:\s'\"]{0,256}:(?:[^\s'\"]|['\"](?![,:;)\]}])){0,2048}@")
"""It may hold `/`, `@` and quotes, so all up to the last `@` goes, with whatever of the path is before it.
Lengths are bounded here and below: without bounds a long text that repeats a beginning takes minutes."""
_USER = re.compile(r"(?<=://)[^/@\s'\"]{1,2048}@")
_SECRET = re.compile(
    r"(?i)([?&#;](?:[\w.-]{0,64}(?:token|secret|passw|signature|sig|credential|key)[\w.-]{0,64}|[\w.-]{0,64}auth"
    r"|authorization|code)=)"
    r"[^&\s'\"]+"
)
_HEADER = re.compile(r"(?i)\b(authorization['\"]?[:=]\s*['\"]?(?:\w+\s+)?|bearer\s+(?=\S*\d))[\w.~+/=-]{8,}")
_NAMED = re.compile(
    r"(?i)((?:passw(?:or)?d|secret[_-]?(?:access[_-]?)?key|client[_-]?secret|api[_-]?key"
    r"|(?:access|auth|refresh)[_-]?token)['\"]?\s?[=:]\s*['\"]?)[^\s'\"&,;*]+"
)
"""Secrets of variables, headers and JSON: X-Api-Key: ..., AWS_SECRET_ACCESS_KEY=... What stands before these words is
not part of the pattern: to try every length of it takes minutes in a long text with hyphens."""
_COOKIE = re.compile(r"(?i)\b((?:set-)?cookie['\"]?:\s*['\"]?)[^\s=;]+=[^\s;'\"]*(?:;\s*[^\s=;]+=[^\s;'\"]*)*")
_SQL = re.compile(r"\s*\[(?:SQL|parameters): .*", re.DOTALL)
"""Where SQLAlchemy begins to quote the statement and its values."""


def disable_telemetry() -> None:
    """Set those variables, before any tool is imported, unless the user chose otherwise; child processes inherit."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def redact(text: str) -> str:
    """Return `text` without user names and passwords in addresses, secret query parameters and tokens of headers."""
    text = _USER.sub("", _PASSWORD.sub("", text))
    for secret in (_SECRET, _HEADER, _NAMED, _COOKIE):
        text = secret.sub(r"\1***", text)
    return text


def redact_values(value: Any) -> Any:
    """Redact every string in nested mappings and sequences."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_values(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [redact_values(item) for item in value]
    return value


def summarize_error(error: BaseException) -> str:
    """Return what an error of a server or library says, in one redacted line of at most 300 characters, without the
    statement of SQL that a database complains of."""
    return redact(" ".join(_SQL.sub("", str(error)).split()))[:300]
