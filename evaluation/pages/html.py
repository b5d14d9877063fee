"""Self-contained HTML pages: a verdict or number first, then tables, images and charts.

Every function escapes the text it is given and returns a piece of `Html` for `section` or `page`. A page holds no
script and fetches nothing, so that it shows the same on disk, in MLflow's sandboxed frame and in KFP's dashboard; its
content security policy holds browsers to that, should a text of the catalogue get through after all.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal, NewType

from evaluation.pages.stylesheet import STYLESHEET

Html = NewType("Html", str)  # markup that is already escaped

Mood = Literal["good", "warn", "bad", "plain"]

MOODS: Mapping[str, Mood] = {"pass": "good", "fail": "bad", "pending": "warn"}
"""Outcome of the gates -> mood of its verdict."""

COLOURS = 6  # line colours of the stylesheet, `--c0` to `--c5`

CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""No script, no frame, nothing fetched: of a page, as `protect_page` writes it into one."""

_POLICY_TAG = f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'

PNG = b"\x89PNG\r\n\x1a\n"


def page(title: str, *sections: str) -> str:
    """Return a whole HTML document of pieces made by this module."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY_TAG}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLESHEET}</style></head>\n"
        f"<body><main>\n<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


def protect_page(document: str) -> str:
    """Return another tool's HTML document under CONTENT_POLICY, so that it shows its texts, tables and inline images.

    Raises `ValueError` for what has no head: the policy would not hold.
    """
    before, head, after = document.partition("<head>")
    if not head:
        raise ValueError("the page has no <head> to write a content security policy into")
    return f"{before}{head}{_POLICY_TAG}{after}"


def section(heading: str, *parts: str) -> Html:
    """Return pieces below a heading, which is also their anchor: `#drift-of-pins` for "Drift of pins"."""
    name = re.sub("[^a-z0-9]+", "-", heading.lower()).strip("-")
    return Html(f'<section id="{name}"><h2>{escape(heading)}</h2>\n' + "\n".join(parts) + "\n</section>")


def paragraph(text: str) -> Html:
    return Html(f"<p>{escape(text)}</p>")


def verdict(text: str, mood: Mood = "plain") -> Html:
    """Return the sentence that a reader came for; it goes first on a page."""
    return Html(f'<p class="verdict {escape(mood)}">{escape(text)}</p>')


def metric_tiles(values: Mapping[str, object]) -> Html:
    """Return key numbers as tiles, name above value."""
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(format_value(value))}</dd></div>" for name, value in values.items()
    )
    return Html(f'<dl class="figures">{tiles}</dl>')


def links(targets: Mapping[str, str]) -> Html:
    """Return links in a row, from text -> relative address. Raises `ValueError` for another machine or a script."""
    for target in targets.values():
        if ":" in target.partition("/")[0] or target.startswith("//") or "\\" in target:  # read as / by browsers
            raise ValueError(f"link to {target!r}: pages link to files beside them, by a relative address")
    row = "".join(f'<a href="{escape(target)}">{escape(text)}</a>' for text, target in targets.items())
    return Html(f"<nav>{row}</nav>")


def details(summary: str, *parts: str) -> Html:
    """Return pieces that open on a click."""
    return Html(f"<details><summary>{escape(summary)}</summary>\n" + "\n".join(parts) + "\n</details>")


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> Html:
    """Return rows under the union of their keys, in order of appearance, numbers to the right; it scrolls if wide."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {c for c in columns if all(_is_number(row.get(c)) or row.get(c) is None for row in rows)}

    def cell(tag: str, column: str, text: str) -> str:
        return f"<{tag}{' class=number' if column in numeric else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in columns)
    body = "\n".join(
        "<tr>" + "".join(cell("td", column, format_value(row.get(column))) for column in columns) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    inner = f"{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
    return Html(f'<div class="scroll"><table>{inner}</table></div>')


def image(png: bytes, caption: str = "") -> Html:
    """Return an encoded PNG, inline. Raises `ValueError` for bytes that are not a PNG."""
    if not png.startswith(PNG):
        raise ValueError(f"a page shows PNG images, and these bytes start with {png[:8]!r}: encode them as PNG")
    data = base64.b64encode(png).decode("ascii")
    return _figure(f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">', caption)


def bars(values: Mapping[str, float], caption: str = "") -> Html:
    """Return a bar a value, from zero; a funnel when the values fall. Raises `ValueError` for one below zero."""
    if wrong := {name: value for name, value in values.items() if not (math.isfinite(value) and value >= 0)}:
        raise ValueError(f"bars start at zero, and cannot show {wrong}")
    longest = max(values.values(), default=0) or 1
    rows = "\n".join(
        f'<span>{escape(name)}</span><svg aria-hidden="true">'
        f'<rect width="{100 * value / longest:.2f}%" height="100%" rx="2"/></svg><b>{escape(format_value(value))}</b>'
        for name, value in values.items()
    )
    return _figure(f'<div class="bars">{rows}</div>', caption)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], caption: str = "") -> Html:
    """Return lines through (x, y) points, a colour a series; points that are not finite break the line."""
    points = [point for line in series.values() for point in line if all(map(math.isfinite, point))]
    if not points:
        return _figure("<p>No points yet.</p>", caption)
    xs, ys = (_choose_ticks(values) for values in zip(*points, strict=True))
    heights = [100 - _locate(y, ys) for y in ys]
    grid = "".join(f'<line x1="0" x2="100" y1="{height:.3f}" y2="{height:.3f}"/>' for height in heights)
    paths = "".join(
        f'<path d="{_trace_path([(_locate(x, xs), 100 - _locate(y, ys)) for x, y in line])}" '
        f'style="stroke:var(--c{index % COLOURS})"/>'
        for index, line in enumerate(series.values())
    )
    x_labels = "".join(f'<span class="x" style="left:{_locate(x, xs):.3f}%">{format_value(x)}</span>' for x in xs)
    y_labels = "".join(f'<span class="y" style="bottom:{_locate(y, ys):.3f}%">{format_value(y)}</span>' for y in ys)
    key = "".join(
        f'<li style="--swatch:var(--c{index % COLOURS})">{escape(name)}</li>' for index, name in enumerate(series)
    )
    return _figure(
        f'<ul class="key">{key}</ul><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{grid}{paths}</svg>'
        f"{x_labels}{y_labels}</div>",
        caption,
    )


def format_value(value: object) -> str:
    """Format a value for a reader: 12,345; 0.1235; 1.2e-05; yes; a dash for nothing."""
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        return str(number)
    if number == round(number) and abs(number) < 1e15:
        return f"{round(number):,}"
    return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"


def _is_number(value: object) -> bool:
    """Return whether a value is a real number of Python or NumPy, but no truth value."""
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _figure(inner: str, caption: str) -> Html:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{inner}{below}</figure>")


def _choose_ticks(values: Sequence[float]) -> list[float]:
    """Return four to six round numbers that enclose the values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * m for m in (1, 2, 2.5, 5, 10) if (high - low) / (step * m) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def _locate(value: float, ticks: Sequence[float]) -> float:
    """Return the place of a value between the first tick and the last, in percent."""
    return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _trace_path(points: Sequence[tuple[float, float]]) -> str:
    """Return SVG path data; a point that is not finite ends a stroke and the next finite one starts another."""
    steps, pen_down = [], False
    for x, y in points:
        if finite := math.isfinite(x) and math.isfinite(y):
            steps.append(f"{'L' if pen_down else 'M'}{x:.3f},{y:.3f}")
        pen_down = finite
    return "".join(steps)
