"""Pages: self-contained, escaped, and honest about what they cannot show."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from canvas.pins.images import encode_png
from evaluation.pages import html as pages

HOSTILE = '<script>alert("x")</script> & <b>'
PNG = encode_png(Image.new("RGB", (2, 2), "red"))


@pytest.mark.parametrize(
    "piece",
    [
        pages.section(HOSTILE),
        pages.paragraph(HOSTILE),
        pages.verdict(HOSTILE, "bad"),
        pages.metric_tiles({HOSTILE: HOSTILE}),
        pages.details(HOSTILE),
        pages.table([{HOSTILE: HOSTILE}], HOSTILE),
        pages.image(PNG, HOSTILE),
        pages.bars({HOSTILE: 1.0}, HOSTILE),
        pages.lines({HOSTILE: [(0, 0), (1, 1)]}, HOSTILE),
        pages.page(HOSTILE),
    ],
)
def test_text_is_escaped(piece: str) -> None:
    assert "<script" not in piece
    assert "<b> " not in piece
    assert "&lt;script&gt;" in piece


def test_page_is_whole_and_fetches_nothing() -> None:
    whole = pages.page("T", pages.section("S", pages.image(PNG), pages.bars({"a": 1})))
    assert whole.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=\"(?!data:|#)", whole)
    assert "<script" not in whole


def test_a_browser_is_told_to_run_and_fetch_nothing() -> None:
    head = pages.page("T").partition("</head>")[0]
    assert head.index("Content-Security-Policy") < head.index("<title>")
    assert "default-src 'none'" in head
    assert "script-src" not in head


def test_another_tools_page_gets_the_policy_before_all_else() -> None:
    page = pages.protect_page("<html>\n<head><script src=x></script></head><body>text</body></html>")
    assert page.index(pages.CONTENT_POLICY) < page.index("<script")
    with pytest.raises(ValueError, match="no <head>"):
        pages.protect_page("<p>text</p>")


@pytest.mark.parametrize("target", ["https://example.org/x", "//example.org", "javascript:alert(1)", "/\\example.org"])
def test_link_elsewhere_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="relative address"):
        pages.links({"x": target})


def test_link_beside_the_page() -> None:
    assert 'href="data_docs/index.html"' in pages.links({"docs": "data_docs/index.html"})


def test_picture_must_be_a_png() -> None:
    with pytest.raises(ValueError, match="encode them as PNG"):
        pages.image(b"\xff\xd8\xff")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bars_refuse_what_has_no_length(value: float) -> None:
    with pytest.raises(ValueError, match="bars start at zero"):
        pages.bars({"a": value})


def test_lines_break_at_points_that_are_not_finite() -> None:
    drawn = pages.lines({"loss": [(0, 1), (1, float("nan")), (2, 3), (3, 4)]})
    (path,) = re.findall(r'<path d="([^"]*)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert "nan" not in drawn
    assert "No points yet" in pages.lines({"loss": []})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001
        ("", "–"),  # noqa: RUF001
        (True, "yes"),
        (12345, "12,345"),
        (0.12345678, "0.1235"),
        (1.2e-5, "1.2e-05"),
        (12345.67, "12,345.7"),
        (float("nan"), "nan"),
        ("text", "text"),
    ],
)
def test_values_as_a_reader_wants_them(value: object, text: str) -> None:
    assert pages.format_value(value) == text


def test_table_has_the_union_of_columns() -> None:
    drawn = pages.table([{"a": 1}, {"b": "x"}])
    assert drawn.count("<th") - drawn.count("<thead") == 2
    assert drawn.count("<tr>") == 3
