"""Styles by name: mined clusters and boards, as the generator is asked for them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from canvas.pins import tables

STYLES_FOLDER = "styles"
"""Where the table stands in the directory of the assembled generator."""

CENTRE_PULL = 0.5
"""How far style images are drawn to the nearest mined cluster (canvas.styles.centres) by default: half-way. Sides of a
place that training never saw are followed further so (docs/experiments/)."""

MAX_STRENGTH = 4.0
"""Strength of a style, at most; 1 is how it was trained."""


@dataclass(frozen=True, slots=True)
class Style:
    """A row of tables.STYLES."""

    style_id: str
    kind: str
    name: str
    uve: NDArray[np.float32]  # [E], unit length
    clip: NDArray[np.float32]
    pins: tuple[str, ...]  # the most typical first
    purity: float | None
    coherence: float | None
    chance: float | None
    dropped: str | None


def write_styles(path: Path, styles: Sequence[Style]) -> None:
    """Write the table."""
    rows = [asdict(style) | {"uve": style.uve.tolist(), "clip": style.clip.tolist()} for style in styles]
    tables.write(path, [pa.Table.from_pylist(rows, tables.STYLES)], tables.STYLES)


def read_styles(path: Path) -> list[Style]:
    """Read the table's rows, dropped ones included."""
    return [
        Style(
            **row
            | {"uve": np.array(row["uve"], np.float32), "clip": np.array(row["clip"], np.float32)}
            | {"pins": tuple(row["pins"])}
        )
        for row in tables.read(path).to_pylist()
    ]


def find_style(styles: Sequence[Style], kind: str, name: str) -> Style:
    """Return the style of `kind` ("cluster" or "board") with that name or id, whatever its case.

    Boards without a style of their own count too: who asks for a board means its images. Raises ValueError for an
    unknown one, offering the nearest names, and for a dropped cluster, saying why.
    """
    of_kind = [style for style in styles if style.kind == kind]
    for style in of_kind:
        if name.strip().lower() in (style.name.lower(), style.style_id):
            if style.kind == "cluster" and style.dropped:
                raise ValueError(f"style cluster {style.name!r} was dropped: {style.dropped}")
            return style
    usable = [style.name for style in of_kind if style.kind == "board" or not style.dropped]
    by_lower = {title.lower(): title for title in usable}
    close = difflib.get_close_matches(name.strip().lower(), list(by_lower), n=3, cutoff=0.4)
    offered = [by_lower[title] for title in close] or sorted(usable)[:3]
    raise ValueError(
        f"no {'style cluster' if kind == 'cluster' else 'board'} is called {name!r}"
        + (f": did you mean {', '.join(map(repr, offered))}?" if offered else ": none was mined")
    )
