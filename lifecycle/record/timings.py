"""Time and memory that a stage took: numbers of its metrics that go into the run's record and not into its outputs.

Everything else that a stage writes is a function of its inputs, params and code, so an equal run gives equal bytes and
nothing that reads them runs again. Times and peaks of memory differ from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifecycle.declare.params import flatten


def take_timings(file: Path) -> dict[str, float]:
    """Take times and peaks of memory out of a Metrics file; return them as `section.key` -> number."""
    values = json.loads(file.read_text(encoding="utf-8"))
    kept, timings = split_timings(values)
    if timings:
        file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return {key: float(value) for key, value in flatten(timings).items()}


def split_timings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `values` without times and peaks of memory, and these alone. They stand under the keys `seconds` and
    `peak_memory_mb`, and those with `_per_second` in them; a group that held nothing else is left out."""
    kept: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("seconds", "peak_memory_mb") or "_per_second" in key:
            timings[key] = value
        elif isinstance(value, Mapping):
            rest, group_timings = split_timings(value)
            if rest or not group_timings:
                kept[key] = rest
            if group_timings:
                timings[key] = group_timings
        else:
            kept[key] = value
    return kept, timings
