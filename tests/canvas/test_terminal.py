from __future__ import annotations

import pytest

from canvas.__main__ import main
from canvas.pins.fallbacks import Notes
from canvas.terminal import strip_controls


def test_letters_stay_and_controls_go() -> None:
    assert strip_controls("größer\n\tals 茶碗") == "größer\n\tals 茶碗"
    assert strip_controls("a\x1b[31mb\x07\x9bc\r") == "a�[31mb��c�"


def test_a_note_about_a_hostile_name_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    Notes().add("board \x1b]0;owned\x07 has no pins")
    assert capsys.readouterr().err == "note: board �]0;owned� has no pins\n"


def test_an_error_of_the_command_line_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--product", "mug\x1b[2J.png", "--prompt", "in a forest", "--model", "nowhere"]) == 1
    assert "\x1b" not in capsys.readouterr().err
