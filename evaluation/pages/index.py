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


def render_index_page(
    place: str, title: str, decision: Mapping[str, Any], headline: Mapping[str, object], exhibits: Iterable[Exhibit]
) -> str:
    """Return an HTML document with a section for each stage, in the order of `exhibits`.

    Args:
        place: Path of this page in the project, from which it links to others.
        decision: `outcome` ("pass", "fail" or "pending") and `reasons` of the gates.
        headline: The few metrics that come first, by title.
    """
    folder = posixpath.dirname(place)
    return pages.page(
        title,
        pages.verdict(f"The gates say: {decision['outcome']}", pages.MOODS[decision["outcome"]]),
        *map(pages.paragraph, decision["reasons"]),
        pages.metric_tiles(headline),
        *(_render_stage(name, list(group), folder) for name, group in groupby(exhibits, lambda exhibit: exhibit.stage)),
    )


def read_metrics(exhibits: Iterable[Exhibit]) -> dict[str, dict[str, float]]:
    """Return stage -> the numbers of its metrics by dotted name, its `notes` and reason to be `skipped` among them."""
    metrics: dict[str, dict[str, float]] = {}
    for exhibit in exhibits:
        if exhibit.kind.suffix == ".json":
            values = json.loads(exhibit.path.read_text(encoding="utf-8"))
            metrics.setdefault(exhibit.stage, {}).update(_flatten_metrics(values))
    return metrics


def _render_stage(stage: str, exhibits: Sequence[Exhibit], folder: str) -> Html:
    parts, links = [pages.paragraph(" ".join(exhibits[0].description.split()))], {}
    numbers: Mapping[str, Any] = next(iter(read_metrics(exhibits).values()), {})
    if isinstance(reason := numbers.get("skipped"), str):  # then its curves and sheets are empty
        return pages.section(stage, *parts, pages.paragraph(f"Skipped: {reason}."))
    parts += [pages.paragraph(f"Note: {note}.") for note in numbers.get("notes", ())]
    for exhibit in exhibits:
        address = posixpath.relpath(exhibit.kind.path, folder)
        match exhibit.kind.suffix:
            case ".png":
                parts.append(pages.image(exhibit.path.read_bytes(), exhibit.argument.replace("_", " ")))
            case ".csv":
                parts.append(_draw_curves(exhibit))
            case ".html":
                links[exhibit.argument] = address
            case "":
                links[exhibit.argument] = f"{address}/index.html"
    parts += [pages.links(links)] if links else []
    for metrics in read_metrics(exhibits).values():
        rows = [{"metric": name, "value": value} for name, value in metrics.items() if name != "notes"]
        parts.append(pages.details(f"{len(rows)} metrics", pages.table(rows)))
    return pages.section(stage, *parts)


def _draw_curves(exhibit: Exhibit) -> Html:
    """Draw the curves of a table by its `x`; where a column `encoder` tells rows apart, a curve for each encoder."""
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


def _flatten_metrics(values: object, name: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {name: values}
    prefix = f"{name}." if name else ""
    return {
        leaf: number
        for key, value in values.items()
        for leaf, number in _flatten_metrics(value, f"{prefix}{key}").items()
    }
