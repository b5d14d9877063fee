from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canvas.pins import tables

COUNT = 4_300
ROWS = pa.table(
    {
        "pin_id": [f"p{i}" for i in range(COUNT)],
        "source": ["title"] * COUNT,
        "caption": ["x"] * COUNT,
        "foreign": [1] * COUNT,
    }
)


@pytest.mark.parametrize("step", [1_000, 77, 4_300])
def test_bytes_do_not_depend_on_the_batches(tmp_path: Path, step: int) -> None:
    pieces = [ROWS.slice(start, step) for start in range(0, ROWS.num_rows, step)]
    assert tables.write(tmp_path / "a", pieces, tables.CAPTIONS) == 4_300
    tables.write(tmp_path / "b", ROWS.to_batches(), tables.CAPTIONS)
    parts = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [pq.ParquetFile(tmp_path / "a" / part).metadata.num_rows for part in parts] == [2_000, 2_000, 300]
    assert all((tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes() for part in parts)


@pytest.mark.usefixtures("engine")
def test_rows_come_back_in_order_without_foreign_columns(tmp_path: Path) -> None:
    tables.write(tmp_path / "t", [ROWS], tables.CAPTIONS)
    expected = [f"p{i}" for i in range(4_300)]
    assert tables.read(tmp_path / "t").schema == tables.CAPTIONS
    assert tables.read(tmp_path / "t", ["pin_id"])["pin_id"].to_pylist() == expected
    streamed = [
        pin for batch in tables.read_batches(tmp_path / "t", ["pin_id"], rows=64) for pin in batch["pin_id"].to_pylist()
    ]
    assert streamed == expected
    assert tables.scan(tmp_path / "t").count_rows() == 4_300


@pytest.mark.usefixtures("engine")
def test_a_folder_with_a_patterns_characters_is_that_folder(tmp_path: Path) -> None:
    tables.write(tmp_path / "t1", [ROWS], tables.CAPTIONS)
    for name in ("t[1]", "t*", "{t}", "t?"):
        tables.write(tmp_path / name / "t", [ROWS.slice(0, 5)], tables.CAPTIONS)
        assert tables.scan(tmp_path / name / "t").count_rows() == 5


def test_no_rows_are_still_a_table(tmp_path: Path) -> None:
    assert tables.write(tmp_path / "t", [], tables.PINS) == 0
    assert tables.read(tmp_path / "t").schema == tables.PINS


def test_wrong_rows_and_an_old_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        tables.write(tmp_path / "t", [pa.table({"pin_id": ["a"]})], tables.CAPTIONS)
    with pytest.raises(FileExistsError):
        tables.write(tmp_path / "t", [], tables.CAPTIONS)


def test_nulls_survive(tmp_path: Path) -> None:
    row = dict.fromkeys(tables.TRUTH.names) | {"pin_id": "a"}
    full = row | {"pin_id": "b", "box": [1, 2, 3, 4], "alpha": b"png", "yaw": 1.5}
    tables.write(tmp_path / "t", [pa.Table.from_pylist([row, full], schema=tables.TRUTH)], tables.TRUTH)
    assert tables.read(tmp_path / "t").to_pylist() == [row, full]


def test_rows_by_id_come_from_their_own_row_groups(tmp_path: Path) -> None:
    tables.write(tmp_path / "t", [ROWS], tables.CAPTIONS)
    rows = tables.RowsById(tmp_path / "t")
    (tmp_path / "t" / "part-00001.parquet").unlink()  # p2000 to p3999 are not looked at
    read = rows.read(["p4200", "p7", "p1999", "unknown", "p7"], ["pin_id", "source"])
    assert read == [{"pin_id": pin, "source": "title"} for pin in ("p7", "p1999", "p4200")]
    assert rows.read([], ["pin_id"]) == []
    assert "p3000" in rows
    assert "unknown" not in rows
    assert list(rows) == [f"p{row}" for row in range(COUNT)]


def test_a_few_row_groups_stay_in_memory(tmp_path: Path) -> None:
    tables.write(tmp_path / "t", [ROWS], tables.CAPTIONS)
    rows = tables.RowsById(tmp_path / "t", remembered=1)
    assert rows.read(["p1"], ["pin_id"]) == [{"pin_id": "p1"}]
    for part in (tmp_path / "t").iterdir():
        part.unlink()
    assert rows.read(["p2"], ["pin_id"]) == [{"pin_id": "p2"}]
    with pytest.raises(FileNotFoundError):
        rows.read(["p250"], ["pin_id"])


def test_rows_of_given_pins_come_in_the_order_of_the_table(tmp_path: Path) -> None:
    tables.write(tmp_path / "t", [ROWS], tables.CAPTIONS)
    pin_ids = {"p900", "p3", "p70", "unknown"}
    assert tables.read_column(tmp_path / "t", "caption", pin_ids) == {"p3": "x", "p70": "x", "p900": "x"}
    batches = list(tables.select_batches(tmp_path / "t", ["source"], pin_ids, rows=100))
    assert [[row["pin_id"] for row in rows] for rows in batches] == [["p3", "p70"], ["p900"]]
    assert list(tables.iterate_rows(tmp_path / "t", [], {"p3"})) == [{"pin_id": "p3"}]
    assert tables.read_column(tmp_path / "t", "caption", set()) == {}
