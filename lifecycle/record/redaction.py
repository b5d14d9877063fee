"""No secret may reach a record or a log: user names and passwords in addresses, and signatures in queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_USER = re.compile(r"(?<=://)[^/@\s'\"]+@")
_SECRET = re.compile(r"(?i)([?&][\w.-]*(?:token|secret|passw|signature|sig|credential|key)[\w.-]*=)[^&\s'\"]+")


def redacted(text: str) -> str:
    """`text` without the user part of addresses and without the values of secret query parameters."""
    return _SECRET.sub(r"\1***", _USER.sub("", text))


def redacted_values(value: Any) -> Any:
    """The same for every string in nested mappings and sequences."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_values(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [redacted_values(item) for item in value]
    return value
