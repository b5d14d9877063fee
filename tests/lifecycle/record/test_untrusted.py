from __future__ import annotations

import sys

import pytest

from lifecycle.record.untrusted import escape_markdown, print_plain, strip_controls
from lifecycle.run.stage import format_error

TERMINAL = "mug\x1b]0;owned\x07 \x1b[2J\x9b31m\u202etxt.exe\r\b"


def test_a_terminal_obeys_nothing_in_a_text() -> None:
    assert strip_controls(TERMINAL) == "mug�]0;owned� �[2J�31m�txt.exe��"
    assert strip_controls("Tasse, größer\n\tals 茶碗 ✓") == "Tasse, größer\n\tals 茶碗 ✓"
    for plain in ("10\u00a0cm", "茶碗\u3000白", "क्\u200cष", "👩\u200d🍳", "Tee\u00adtasse"):
        assert strip_controls(plain) == plain
    assert strip_controls("a\u2028b\u2066c\u200fd\ufeff") == "a�b�c�d�"


def test_the_sentence_of_a_failed_stage_is_plain() -> None:
    assert strip_controls(message := format_error("ingest", ValueError(f"pin {TERMINAL!s}"))) == message
    assert "\x1b" not in message


def test_what_a_server_says_is_printed_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_plain(f"note: {TERMINAL}", file=sys.stderr)
    print_plain(f"said: {TERMINAL}")
    printed = capsys.readouterr()
    assert (printed.err, printed.out) == (f"note: {strip_controls(TERMINAL)}\n", f"said: {strip_controls(TERMINAL)}\n")


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
