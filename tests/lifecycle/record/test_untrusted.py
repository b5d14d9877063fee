from __future__ import annotations

import pytest

from lifecycle.record.untrusted import escape_markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a mug, in a forest", "a mug, in a forest"),
        ("mug](http://example.org/x.png) ![", r"mug\](http://example.org/x.png) \!\["),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("one\n\n# two", "one # two"),
        (r"\](x)", r"\\\](x)"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped
