"""Great Expectations suites on real tables: what passes, and every way a table can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from canvas.pins import tables
from evaluation.pages.html import CONTENT_POLICY
from evaluation.tables.expectations import (
    SUITES,
    count_checks,
    read_suite_frame,
    select_failures,
    validate_frames,
)
from evaluation.tables.spec import Limits

LIMITS = Limits(min_pins=3, max_broken=0.4, max_untitled=0.4, max_rejected_masks=0.5)
IDS = ["a", "b", "c"]

ROWS: dict[str, list[dict[str, Any]]] = {
    "pins": [
        {
            "pin_id": pin_id,
            "image": b"jpeg",
            "width": 100,
            "height": 150,
            "title": "A mug",
            "description": "",
            "alt_text": "",
            "board": "Mugs",
            "product_id": "mug",
            "category": "Mugs",
            "promoted": False,
            "impressions": 10,
            "saves": 2,
            "clicks": 1,
            "source": "test",
            "split": "train",
        }
        for pin_id in IDS
    ],
    "kept": [{"pin_id": pin_id, "kept": True, "brightness": 0.5, "clipped": 0.0, "nsfw": None} for pin_id in IDS],
    "masks": [
        {"pin_id": pin_id, "mask": b"png", "alpha": b"png", "confidence": 0.9, "box": [0, 0, 5, 5]} for pin_id in IDS
    ],
    "captions": [{"pin_id": pin_id, "source": "title", "caption": "a mug"} for pin_id in IDS],
}
SCHEMAS = {"pins": tables.PINS, "kept": tables.KEPT, "masks": tables.MASKS, "captions": tables.CAPTIONS}

Change = Callable[[list[dict[str, Any]]], Any]


def table(tmp_path: Path, name: str, change: Change | None = None) -> Path:
    rows = [dict(row) for row in ROWS[name]]
    if change is not None:
        change(rows)
    path = tmp_path / name
    tables.write(path, [pa.Table.from_pylist(rows, SCHEMAS[name])], SCHEMAS[name])
    return path


def checked(tmp_path: Path, name: str, change: Change | None = None) -> Any:
    frame = read_suite_frame(table(tmp_path, name, change), None if name == "pins" else IDS)
    return validate_frames("T", {name: frame}, LIMITS, tmp_path / "docs", tmp_path / "failed.html")


@pytest.mark.parametrize("name", SUITES)
def test_good_table_meets_every_expectation(tmp_path: Path, name: str) -> None:
    validation = checked(tmp_path, name)
    assert all(check.success for check in validation.checks)
    assert count_checks(validation.checks)[name]["met"] == len(validation.checks) > 3
    assert (tmp_path / "docs" / "index.html").is_file()
    assert not (tmp_path / "failed.html").exists()


@pytest.mark.parametrize("columns", [("impressions",), ("saves", "clicks"), ("impressions", "saves"), ("saves",)])
def test_counts_that_a_list_lacks_are_no_failure(tmp_path: Path, columns: tuple[str, ...]) -> None:
    for rows_without in ([0], [0, 1, 2]):
        change = lambda rows: [rows[at].update(dict.fromkeys(columns)) for at in rows_without]  # noqa: B023, E731
        validation = checked(tmp_path / str(len(rows_without)), "pins", change)
        assert all(check.success for check in validation.checks)


def setting(row: int, **values: object) -> Change:
    return lambda rows: rows[row].update(values)


@pytest.mark.parametrize(
    ("name", "change", "column", "pin"),
    [
        ("pins", setting(1, pin_id="a"), "pin_id", "a"),
        ("pins", setting(1, image=None), "image_bytes", "b"),
        ("pins", setting(2, split="test"), "split", "c"),
        ("pins", setting(2, clicks=-1), "clicks", "c"),
        ("pins", setting(0, saves=11), "impressions", "a"),
        ("pins", lambda rows: rows.pop(), "", ""),
        ("kept", setting(0, pin_id="stranger"), "known", "stranger"),
        ("kept", setting(1, brightness=1.5), "brightness", "b"),
        ("kept", setting(1, kept=None), "kept", "b"),
        ("masks", setting(2, confidence=-0.1), "confidence", "c"),
        ("masks", setting(2, mask=b""), "mask_bytes", "c"),
        ("captions", setting(2, source="rumour"), "source", "c"),
        ("captions", setting(2, pin_id="b"), "pin_id, source", "b"),
        ("captions", setting(0, caption=""), "caption", "a"),
        ("kept", lambda rows: rows.pop(), "present", "c"),
        ("masks", lambda rows: rows.pop(0), "present", "a"),
        ("captions", lambda rows: rows.pop(1), "present", "b"),
    ],
)
def test_critical_failure_names_expectation_column_and_pins(
    tmp_path: Path, name: str, change: Change, column: str, pin: str
) -> None:
    with pytest.raises(ValueError, match="expect_") as error:
        checked(tmp_path, name, change)
    assert str(error.value).startswith(f"{name}.{column}: expect_" if column else f"{name}: expect_")
    assert pin in str(error.value)
    assert "failed.html" in str(error.value)
    assert "critical" in (tmp_path / "failed.html").read_text()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pins", {"title": ""}),
        ("pins", {"width": 0}),
        ("pins", {"category": None}),
        ("masks", {"rejected": "too small"}),
    ],
)
def test_warning_is_reported_and_stops_nothing(tmp_path: Path, name: str, values: Mapping[str, object]) -> None:
    validation = checked(tmp_path, name, lambda rows: [row.update(values) for row in rows])
    assert len(select_failures(validation.checks, "warning")) == 1
    assert count_checks(validation.checks)[name]["warnings"] == 1
    assert "warning" in validation.page


def test_missing_column_is_critical_and_named(tmp_path: Path) -> None:
    frame = read_suite_frame(table(tmp_path, "pins"), None).drop(columns="title")  # its expectation is a warning
    with pytest.raises(ValueError, match=r'pins\.title: .* cannot be checked: The column "title" .* does not exist'):
        validate_frames("T", {"pins": frame}, LIMITS, tmp_path / "docs", tmp_path / "failed.html")


def test_table_without_pin_ids_is_one_sentence(tmp_path: Path) -> None:
    tables.write(tmp_path / "t", [pa.table({"row": [1], "uri": ["x"], "reason": ["y"]})], tables.QUARANTINE)
    with pytest.raises(ValueError, match="no table with a pin_id column"):
        read_suite_frame(tmp_path / "t", None)


def test_a_dollar_in_the_name_of_a_folder_is_no_variable(tmp_path: Path) -> None:
    place = tmp_path / "a$HOME {b}*"
    place.mkdir()
    checked(place, "pins")
    assert (place / "docs" / "index.html").is_file()


def test_same_table_gives_the_same_site(tmp_path: Path) -> None:
    frame = read_suite_frame(table(tmp_path, "pins"), None)
    sites = []
    for name in ("one", "two"):
        validate_frames("T", {"pins": frame}, LIMITS, tmp_path / name, tmp_path / "failed.html")
        pages = (tmp_path / name).rglob("*.html")
        sites.append({str(page.relative_to(tmp_path / name)): page.read_bytes() for page in pages})
    assert sites[0] == sites[1]
    assert len(sites[0]) == 3


def test_a_hostile_pin_runs_nothing_in_data_docs(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"

    def spoil(rows: list[dict[str, Any]]) -> None:
        rows[0].update(pin_id=hostile, title="")  # warned of, so that the pin is named

    validation = checked(tmp_path, "pins", spoil)
    assert "&lt;script&gt;alert(1)" in validation.page
    assert hostile not in validation.page
    sites = list((tmp_path / "docs").rglob("*.html"))
    assert len(sites) == 3
    for site in sites:
        page = site.read_text()
        assert page.index(CONTENT_POLICY) < page.index("<title>")


def test_all_pins_dropped_is_critical(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kept\.kept: expect_column_distinct_values_to_contain_set"):
        checked(tmp_path, "kept", lambda rows: [row.update(kept=False) for row in rows])
