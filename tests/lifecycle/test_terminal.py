from __future__ import annotations

import inspect
import sys

import pytest

import canvas.terminal
import lifecycle.terminal
from lifecycle.run.stage import format_error
from lifecycle.terminal import print_plain, strip_controls

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


@pytest.mark.parametrize("name", ["strip_controls", "_is_plain", "ignore_broken_pipe"])
def test_what_two_packages_say_is_one_text(name: str) -> None:
    """Neither may import the other."""
    first, second = (inspect.getsource(getattr(module, name)) for module in (canvas.terminal, lifecycle.terminal))
    assert first == second
    assert canvas.terminal._KEPT == lifecycle.terminal._KEPT
