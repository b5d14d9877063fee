"""Times and peaks of memory are taken out of metrics, however deep, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lifecycle.record.timings import split_timings, take_timings


@pytest.mark.parametrize(
    ("values", "kept", "timings"),
    [
        ({"psnr": 20.0, "seconds": 3.0}, {"psnr": 20.0}, {"seconds": 3.0}),
        ({"loss": 0.5, "peak_memory_mb": 812.5}, {"loss": 0.5}, {"peak_memory_mb": 812.5}),
        ({"seconds": {"train": 1, "score": 2}}, {}, {"seconds": {"train": 1, "score": 2}}),
        (
            {
                "first": {"recall": 0.5, "images_per_second": 9.0, "seconds": {"train": 1}},
                "pins_per_second_of": {"a": 2},
            },
            {"first": {"recall": 0.5}},
            {"first": {"images_per_second": 9.0, "seconds": {"train": 1}}, "pins_per_second_of": {"a": 2}},
        ),
        ({"run": {"seconds": 1.0}, "none": {}}, {"none": {}}, {"run": {"seconds": 1.0}}),
        (
            {"seconds_of_video": 3, "second": 2, "notes": ["3 seconds"], "skipped": "seconds"},
            {"seconds_of_video": 3, "second": 2, "notes": ["3 seconds"], "skipped": "seconds"},
            {},
        ),
    ],
)
def test_times_and_memory_are_taken(values: dict[str, Any], kept: dict[str, Any], timings: dict[str, Any]) -> None:
    assert split_timings(values) == (kept, timings)


def test_a_file_without_times_keeps_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text('{"psnr":   20.0}')
    assert take_timings(file) == {}
    assert file.read_text() == '{"psnr":   20.0}'
    file.write_text('{"psnr": 20.0, "by": {"seconds": 2}}')
    assert take_timings(file) == {"by.seconds": 2.0}
    assert file.read_text() == '{\n "psnr": 20.0\n}\n'
