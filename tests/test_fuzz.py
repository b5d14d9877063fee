"""The runner of the fuzzers sees every kind of fault, and goes on after it; the fuzzers catch wrong parsers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from canvas.sources.text_rows import read_csv_rows
from canvas.sources.values import Row
from tests.fuzz import images, manifest, params
from tests.fuzz.runner import format_report, run_cases


def try_case(seed: int) -> str | None:
    """A fuzzer of which each seed goes wrong in its own way."""
    if seed == 1:
        raise RuntimeError("broken")
    if seed == 2:
        time.sleep(60)
    if seed == 3:
        os._exit(9)
    return "accepted in silence" if seed == 4 else None


def test_every_kind_of_fault_is_seen_and_the_next_case_is_tried() -> None:
    started = time.monotonic()
    faults = run_cases(__name__, 0, 6, hang_seconds=1.0)
    assert [(fault.seed, fault.kind) for fault in faults] == [
        (1, "traceback"), (2, "hang"), (3, "died"), (4, "wrong")
    ]  # fmt: skip
    assert "RuntimeError: broken" in faults[0].message
    report = format_report("own", faults, 6, started)
    assert "1 wrong, 1 traceback, 1 hang, 1 died" in report
    assert "seed 4, wrong: accepted in silence" in report


def change_text(*arguments: Any) -> Iterator[Row]:
    """Read CSV as a parser that guesses dates does."""
    for row in read_csv_rows(*arguments):
        yield Row({name: text and text.replace("/0", "/") for name, text in row.values.items()}, fault=row.fault)


def lose_bad_rows(*arguments: Any) -> Iterator[Row]:
    """Read CSV as a parser that skips what it does not understand."""
    return (row for row in read_csv_rows(*arguments) if not row.fault)


def lose_last_row(*arguments: Any) -> Iterator[Row]:
    return iter(list(read_csv_rows(*arguments))[:-1])


def stop_at_a_bad_row(*arguments: Any) -> Iterator[Row]:
    for row in read_csv_rows(*arguments):
        if row.fault:
            raise ValueError(row.fault)
        yield row


def echo_the_line(file: Path, *arguments: Any) -> Iterator[Row]:
    raise ValueError(f"cannot parse\n{file.read_bytes()!r}")


@pytest.mark.parametrize("parser", [change_text, lose_bad_rows, lose_last_row, stop_at_a_bad_row, echo_the_line])
def test_the_fuzzer_of_lists_catches_a_wrong_parser(
    parser: Callable[..., Iterator[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(0, 120, 3)  # those of CSV
    assert not any(map(manifest.try_case, seeds))
    monkeypatch.setattr("canvas.sources.manifest.read_csv_rows", parser)
    assert any(map(manifest.try_case, seeds))


@pytest.mark.parametrize(
    ("broken", "replacement", "seeds"),
    [
        ("canvas.pins.images.check_png_rows", lambda data: None, range(7, 70, 14)),  # files that lack rows
        ("canvas.pins.images._is_complete", lambda container, image: True, range(3, 70, 14)),  # cut off, with an end
        ("canvas.pins.images.build_converter", lambda profile, colours: 1 / 0, range(12, 70, 14)),  # broken profiles
    ],
)
def test_the_fuzzer_of_images_catches_a_wrong_decoder(
    broken: str, replacement: Any, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(map(images.try_case, seeds))
    monkeypatch.setattr(broken, replacement)
    assert any(map(images.try_case, seeds))


def test_the_fuzzer_of_params_catches_a_reader_that_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [seed for seed in range(60) if seed % 4]
    assert not any(map(params.try_case, seeds))
    monkeypatch.setattr("lifecycle.declare.params.read_section", lambda kind, section, sections: None)
    assert any(" for a number" in (params.try_case(seed) or "") for seed in seeds)
