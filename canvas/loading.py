"""One model of transformers at a time."""

from __future__ import annotations

import threading

LOADING_LOCK = threading.Lock()
"""Held while `from_pretrained` runs. transformers builds a model under switches of the whole process (meta device, no
initial weights): two workers of the data engine that load at once leave one with random weights where they were tied,
and only a report on the console says so."""
