"""The page that a person opens after a run: what every stage left, stage by stage, whatever stages there are."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from evaluation.pages import html as pages
from evaluation.pages.html import Html

MOODS: Mapping[str, pages.Mood] = {"pass": "good", "fail": "bad", "pending": "warn"}


class Exhibit(Protocol):
    """What a stage leaves for people to read (lifecycle.declare.stage.Exhibit).

    Its kind has the `path` that it is linked at and a `suffix`: .json (metrics), .csv (a table to draw, with `x`, `y`
    and `template`), .png, .html, or none (a site).
    """

    @property
    def stage(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def argument(self) -> str: ...
    @property
    def kind(self) -> type[Any]: ...
    @property
    def path(self) -> Path: ...


def index_page(
    place: str, title: str, decision: Mapping[str, Any], headline: Mapping[str, object], exhibits: Iterable[Exhibit]
) -> str:
    """A whole HTML document with a section for each stage, in the order of `exhibits`.

    Args:
        place: Path of this page in the project, from which it links to others.
        decision: `outcome` ("pass", "fail" or "pending") and `reasons` of the gates.
        headline: The few figures that come first, by title.
    """
    folder = posixpath.dirname(place)
    return pages.page(
        title,
        pages.verdict(f"The gates say: {decision['outcome']}", MOODS[decision["outcome"]]),
        *map(pages.paragraph, decision["reasons"]),
        pages.metric_tiles(headline),
        *(_section(name, list(own), folder) for name, own in groupby(exhibits, lambda exhibit: exhibit.stage)),
    )


def read_figures(exhibits: Iterable[Exhibit]) -> dict[str, dict[str, float]]:
    """Stage -> the numbers of its metrics by dotted name."""
    figures: dict[str, dict[str, float]] = {}
    for exhibit in exhibits:
        if exhibit.kind.suffix == ".json":
            figures.setdefault(exhibit.stage, {}).update(_leaves(json.loads(exhibit.path.read_text(encoding="utf-8"))))
    return figures


def _section(stage: str, exhibits: Sequence[Exhibit], folder: str) -> Html:
    parts, links = [pages.paragraph(" ".join(exhibits[0].description.split()))], {}
    for exhibit in exhibits:
        address = posixpath.relpath(exhibit.kind.path, folder)
        match exhibit.kind.suffix:
            case ".png":
                parts.append(pages.image(exhibit.path.read_bytes(), exhibit.argument.replace("_", " ")))
            case ".csv":
                parts.append(_draw(exhibit))
            case ".html":
                links[exhibit.argument] = address
            case "":
                links[exhibit.argument] = f"{address}/index.html"
    parts += [pages.links(links)] if links else []
    for figures in read_figures(exhibits).values():
        rows = [{"figure": name, "value": value} for name, value in figures.items()]
        parts.append(pages.details(f"{len(rows)} figures", pages.table(rows)))
    return pages.section(stage, *parts)


def _draw(exhibit: Exhibit) -> Html:
    """The curves of a table by its `x`; where a column `encoder` tells rows apart, a curve for each encoder."""
    kind, caption = exhibit.kind, exhibit.argument.replace("_", " ")
    columns = (kind.y,) if isinstance(kind.y, str) else kind.y
    with exhibit.path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if kind.template.startswith("bar"):
        return pages.bars({row[column]: float(row[kind.x]) for row in rows for column in columns}, caption)
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for column in columns:
            if row[column]:  # else it was not measured there
                label = row.get("encoder") or column.replace("_", " ")
                series.setdefault(label, []).append((float(row[kind.x]), float(row[column])))
    return pages.lines(series, f"{caption} by {kind.x}")


def _leaves(values: object, name: str = "") -> list[tuple[str, Any]]:
    if not isinstance(values, dict):
        return [(name, values)]
    return [leaf for key, value in values.items() for leaf in _leaves(value, f"{name}.{key}" if name else key)]
