"""How long parts of a stage took: numbers of its metrics that go into the run's record and not into its outputs.

Everything else that a stage writes is a function of its inputs, params and code, so an equal run gives equal bytes and
nothing that reads them runs again. Times differ from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifecycle.declare.params import flatten


def take_timings(file: Path) -> dict[str, float]:
    """Take the times out of a Metrics file; return them as `section.key` -> number."""
    values = json.loads(file.read_text(encoding="utf-8"))
    kept, timings = split_timings(values)
    if timings:
        file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return {key: float(value) for key, value in flatten(timings).items()}


def split_timings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `values` without times, and the times alone. A key `seconds`, or with `_per_second` in it, holds times; a
    group that held nothing else is left out."""
    kept: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    for key, value in values.items():
        if key == "seconds" or "_per_second" in key:
            timings[key] = value
        elif isinstance(value, Mapping):
            rest, own = split_timings(value)
            if rest or not own:
                kept[key] = rest
            if own:
                timings[key] = own
        else:
            kept[key] = value
    return kept, timings
