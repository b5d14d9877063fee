"""Text that came with a catalogue, on its way to a page of MLflow: it shows, and does nothing."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"[\\`*\[\]<>!|~]")


def escape_markdown(text: str) -> str:
    """Return `text` as one line that Markdown shows as it is: no image or link of its own, no HTML, no emphasis."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
