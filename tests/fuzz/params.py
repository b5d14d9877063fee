"""params.yaml with a value that is none: refused in one sentence that names it, and never by a traceback."""

from __future__ import annotations

import copy
import datetime
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import Sections, load_sections, read_stage_params
from lifecycle.declare.stage import Stage
from pipelines.project import load_checked_sections

ROOT = Path(__file__).parents[2]
PROFILES = ("demo", "tiny", "small", "canvas-xl", "dit")
DEEP: Any = [1]
for _ in range(3000):
    DEEP = [DEEP]
LOOP: list[Any] = []
LOOP.append(LOOP)
WRONG: tuple[Any, ...] = (
    "", "0", "x" * 5000, "a\nb", [], [[]], {}, {"a": 1}, True, float("nan"), float("inf"), datetime.date(2024, 1, 1),
    b"bytes", {1, 2}, DEEP, LOOP, {None: 1}, {1.5: 2},
)  # fmt: skip
"""What is no number."""
NUMBERS: tuple[Any, ...] = (0, 0.0, -1, -0.5, 1, 2, 3, 7, 1e-300, 1e308, 10**30, -(10**30), 0.5, 1.5, 2**31, 2**63)
MIXED = ("trunk_args",)
"""Keys below which text and numbers both stand."""


def try_case(seed: int) -> str | None:
    """Change a value of a profile, or bytes of params.yaml; return what was accepted or said wrongly."""
    draw = np.random.default_rng(seed)
    return _try_bytes(draw) if seed % 4 == 0 else _try_value(draw)


def _try_value(draw: np.random.Generator) -> str | None:
    sections = copy.deepcopy(_load(PROFILES[int(draw.integers(len(PROFILES)))]))
    leaves = list(_list_leaves(sections))
    path, before = leaves[int(draw.integers(len(leaves)))]
    wrong = draw.random() < 0.5
    values = WRONG if wrong else NUMBERS
    value = values[int(draw.integers(len(values)))]
    parent: Any = sections
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    was_number = isinstance(before, int | float) and not isinstance(before, bool)
    must_fail = wrong and was_number and not any(key in MIXED for key in path)
    try:
        for stage in _list_readers(str(path[0])):
            read_stage_params(stage, sections)
    except ValueError as error:
        return _judge_sentence(str(error))
    return f"{'.'.join(map(str, path))} took {value!r:.80} for a number" if must_fail else None


def _try_bytes(draw: np.random.Generator) -> str | None:
    data = (ROOT / "params.yaml").read_bytes()
    for _ in range(int(draw.integers(1, 4))):
        place, length = int(draw.integers(len(data))), int(draw.integers(1, 5))
        inserted = (b"[" * 5000, b"{", b"\t", b"&a [*a]", b"!!python/object", draw.bytes(length), b": ", b"9" * 5000)
        data = data[:place] + inserted[int(draw.integers(len(inserted)))] + data[place + length :]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_bytes(data)
        try:
            load_checked_sections(Path(folder), "demo", load_stages())
        except ValueError as error:
            return _judge_sentence(str(error))
    return None


def _judge_sentence(sentence: str) -> str | None:
    return f"no sentence: {sentence[:300]!r}" if "\n" in sentence or len(sentence) > 3000 else None


@cache
def _load(profile: str) -> Sections:
    return load_sections(profile, ROOT)


@cache
def _list_readers(section: str) -> tuple[Stage[Any], ...]:
    return tuple(stage for stage in load_stages() if section in stage.params)


def _list_leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every place below `value`: a section's, a key's, an entry's."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _list_leaves(entry, (*path, key))
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _list_leaves(entry, (*path, number))
