"""What owners of catalogues really write, and what is read of it."""

from __future__ import annotations

import datetime
import decimal
import json
import lzma
import resource
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canvas.pins.fallbacks import Notes
from canvas.sources.parquet_rows import iterate_parquet_batches, read_parquet_rows
from canvas.sources.text_rows import MAX_ROW_BYTES, read_csv_rows, read_json_rows
from canvas.sources.values import Row, format_number, trim

COLUMNS = {"pin_id": "sku", "image": "photo", "title": "title"}


def read_csv(tmp_path: Path, content: str | bytes, notes: Notes | None = None) -> list[Row]:
    file = tmp_path / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_csv_rows(file, "list.csv", COLUMNS, notes or Notes()))


def read_json(tmp_path: Path, content: str | bytes, columns: dict[str, str] = COLUMNS) -> list[Row]:
    file = tmp_path / "list.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_json_rows(file, "list.jsonl", columns, Notes()))


def read_parquet(
    tmp_path: Path, table: pa.Table, columns: dict[str, str] = COLUMNS, notes: Notes | None = None
) -> list[Row]:
    pq.write_table(table, tmp_path / "list.parquet")
    return list(read_parquet_rows(tmp_path / "list.parquet", "list.parquet", columns, columns, notes or Notes()))


def cells(rows: Sequence[Row]) -> list[list[str | None]]:
    return [list(row.values.values()) for row in rows]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sku,photo,title\n007,a.jpg,10:30\n", [["007", "a.jpg", "10:30"]]),
        ("\ufeffsku,photo,title\r\n\r\n1,a.jpg,one\r\n \r\n", [["1", "a.jpg", "one"], None]),
        ("title,sku,photo\n2024/01/01,1e16,NA\n", [["1e16", "NA", "2024/01/01"]]),
        ("sku;photo;title\n1;a.jpg;Mug, blue\n", [["1", "a.jpg", "Mug, blue"]]),
        ("sku\tphoto\ttitle\n1\ta.jpg\tMug\n", [["1", "a.jpg", "Mug"]]),
        ("sku|photo|title\n1|a.jpg|Mug\n", [["1", "a.jpg", "Mug"]]),
        ("sep=;\nsku;photo;title\n1;a.jpg;Mug\n", [["1", "a.jpg", "Mug"]]),
        ('sku, photo, title\n1, a.jpg, "Mug, blue"\n', [["1", "a.jpg", "Mug, blue"]]),
        ('sku,photo,title\n1,a.jpg,"two\nlines"\n2,b.jpg,"a ""quote"""\n',
         [["1", "a.jpg", "two\nlines"], ["2", "b.jpg", 'a "quote"']]),
        ("sku,photo,title\n1,a.jpg\n2,b.jpg,x,y\n3,c.jpg,12\" mug\n", [None, None, ["3", "c.jpg", '12" mug']]),
        ('sku,photo,title\n1,a.jpg,"open\n2,b.jpg,x\n3,c.jpg,y\n', [None, ["2", "b.jpg", "x"], ["3", "c.jpg", "y"]]),
        ('sku,photo,title\n1,a.jpg,"open\n2,"b.jpg",x\n', [None, ["2", "b.jpg", "x"]]),
        ("sku,photo,title\n,,\n", [[None, None, None]]),
        ("SKU,sku ,photo,title\nA,1,a.jpg,x\n", [["1", "a.jpg", "x"]]),
        ("\ufeff\ufeffsku,photo\u00a0,\u200btitle\n1,a.jpg,x\n", [["1", "a.jpg", "x"]]),
    ],
)  # fmt: skip
def test_csv(tmp_path: Path, content: str, expected: list[list[str | None] | None]) -> None:
    rows = read_csv(tmp_path, content)
    assert [None if row.fault else list(row.values.values()) for row in rows] == expected


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1,a.jpg", "line 3: 2 cells where the header has 3"),
        ('1,a.jpg,"open', "line 3: a quote is opened and not closed"),
        ('1,a.jpg,"x" y', "line 3: a quote stands where none may"),
        (f"1,a.jpg,{'x' * MAX_ROW_BYTES}", f"line 3: longer than {MAX_ROW_BYTES} bytes"),
        ("1,a.jpg,x\ry", "line 3: a carriage return stands inside a cell"),
    ],
)
def test_one_bad_line_is_one_fault(tmp_path: Path, row: str, fault: str) -> None:
    rows = read_csv(tmp_path, f"sku,photo,title\n0,a.jpg,x\n{row}\n2,b.jpg,y\n")
    assert [bool(parsed.fault) for parsed in rows] == [False, True, False]
    assert (rows[1].fault or "").startswith(fault)


HEADER, GOOD = "sku,photo,title\n", "0,a.jpg,x\n"


def test_lines_of_a_row_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canvas.sources.text_rows.MAX_ROW_LINES", 4)
    (row,) = read_csv(tmp_path, HEADER + '1,a.jpg,"' + "\n" * 3 + '"\n')
    assert row.values["title"] == "\n\n\n"
    for lines in ("\n" * 4, "x\n" * 4):  # what follows an open quote, up to the limit
        rows = read_csv(tmp_path, HEADER + '1,a.jpg,"' + lines + GOOD * 9)
        assert rows[0].fault == "line 2: a quote is opened and not closed"
        assert [bool(row.fault) for row in rows[-9:]] == [False] * 9
    read_csv(tmp_path, HEADER + "\n" * 99 + "x\n" * 99 + GOOD)  # no quote is open
    for lines in ("\n" * 6, "x\n" * 6):
        with pytest.raises(ValueError, match=r"^line 3 of list\.csv opens a quote that no line closes, and the 4 "):
            read_csv(tmp_path, HEADER + GOOD + '1,a.jpg,"' + lines + GOOD * 9)


def test_lines_that_are_read_again_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canvas.sources.text_rows.MAX_ROW_LINES", 4)
    monkeypatch.setattr("canvas.sources.text_rows.MAX_LINES_AGAIN", 40)
    block = '1,a.jpg,"\n' + GOOD * 4  # four lines are read again
    rows = read_csv(tmp_path, HEADER + block * 10)
    assert sum(bool(row.fault) for row in rows) == 10
    with pytest.raises(ValueError, match=r"^line 52 of list\.csv is one of many that open a quote"):
        read_csv(tmp_path, HEADER + block * 11)


@pytest.mark.parametrize("line", ["\n", "x\n", 'a","\n'])  # the last opens a quote whether one is open or not
def test_millions_of_lines_after_a_quote_cost_little(tmp_path: Path, line: str) -> None:
    content = f'{HEADER}{GOOD}1,a.jpg,"{line * 3_000_000}"\n{GOOD}'
    started, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"line \d+ of list\.csv .* quote that no line closes"):
        read_csv(tmp_path, content)
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def test_what_parts_the_cells_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_csv(tmp_path, "sku;photo;title\n1;a.jpg;x\n")
    assert "list.csv is parted by semicolons, not by commas" in capsys.readouterr().err
    read_csv(tmp_path, "sku, photo, title\n1, a.jpg, x\n")
    assert "list.csv has a space after its commas" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("sku,photo,title\n1,a.jpg,Café\n".encode("latin-1"), r"line 2 of list\.csv is not UTF-8 \(byte 0xe9.*Café"),
        ("sku,photo,title\n1,a.jpg,x\n".encode("utf-16"), r"list\.csv is UTF-16: save it as UTF-8"),
        ("sku,photo,title\n1,a.jpg,x\n".encode("utf-16-le"), "full of zero bytes"),
        ("sku,photo,title\n1,a.jpg,x\n".encode("utf-32"), r"list\.csv is UTF-32: save it as UTF-8"),
        (b"PAR1abc", "list.csv is Parquet: set ingest.manifest.format"),
        (b"PK\x03\x04abc", "spreadsheet"),
        (b"\x1f\x8b\x08abc", "list.csv is gzip: unpack it"),
        (b"", r"list\.csv is empty"),
        (b"\n\n", r"list\.csv is empty"),
        (b"sku,photo,title\r1,a.jpg,x\r", "ends its lines with carriage returns alone"),
        (b"sku;photo\n1;a.jpg\n", r"no column 'title' \(ingest\.manifest\.columns\.title\); it has by semicolons sku"),
        (b"sku,photo,title,sku\n1,a,b,2\n", r"column 'sku' \(ingest\.manifest\.columns\.pin_id\) 2 times"),
        (b"x" * 2 * MAX_ROW_BYTES, r"the header of list\.csv is longer"),
        (b'{"sku": "1", "photo": "a.jpg"}\n', "list.csv is JSON: set ingest.manifest.format to jsonl"),
        (b'[{"sku": "1"}]\n', "list.csv is JSON"),
        (lzma.compress(b"sku,photo,title\n"), "list.csv is xz: unpack it"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "list.csv is 7-Zip: unpack it"),
        (b"list.csv" + bytes(249) + b"ustar" + bytes(300), "list.csv is a tar archive: unpack it"),
        (b"SQLite format 3\0" + bytes(99), "list.csv is an SQLite database"),
        (b"ARROW1\0\0" + bytes(99), "list.csv is Arrow IPC, which is Feather, too: write it as Parquet"),
        (b"\xef\xbb\xbf<!DOCTYPE html>\n<html>", "list.csv is a web page, perhaps one to sign in at"),
        (b'<?xml version="1.0"?>\n<rss/>', "list.csv is XML: save it as CSV"),
        (b"\xff\xd8\xff\xe0JFIF", "list.csv is an image: name the list of images"),
        (b"version https://git-lfs.github.com/spec/v1\n", "list.csv is a Git LFS pointer: run git lfs pull"),
    ],
)
def test_a_file_that_is_no_list_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_csv(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_jsonl_keeps_what_was_written(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"sku": "2024/01/01", "photo": "a.jpg", "title": "10:30"}',
        "",
        '{"sku": 10000000000000001, "photo": "a.jpg", "title": 1.50}',
        '  {"sku": 4006381333931.0, "photo": null, "title": true}\r',
        '{"sku": 1e400, "photo": "a.jpg"}',
        '{"sku": -0.0, "photo": "a.jpg", "title": "", "more": NaN, "nested": {"a": [1]}}',
    ]
    assert cells(read_json(tmp_path, "\n".join(lines))) == [
        ["2024/01/01", "a.jpg", "10:30"],
        ["10000000000000001", "a.jpg", "1.50"],
        ["4006381333931", None, "true"],
        ["1e400", "a.jpg"],
        ["0", "a.jpg", ""],
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"sku": NaN, "photo": "a", "title": "x"}', "line 2: sku is NaN, which JSON does not know"),
        ('{"sku": "1", "photo": "a", "title": ["x"]}', "line 2: title is a list: write one text or number"),
        ('{"sku": "1", "photo": {"a": 1}, "title": "x"}', "line 2: photo is an object"),
        ('{"sku": "1", "photo"', "line 2: no JSON, "),
        ('{"sku": "1"} {"sku": "2"}', "line 2: no JSON, extra data at character 14"),
        ('"text"', "line 2: no JSON object: write {...} on every line"),
        ('{"sku": "1", "sku": "2", "photo": "a"}', "line 2: key 'sku' stands twice"),
        ('{"sku": "\\ud83d", "photo": "a"}', "line 2: sku holds half a character"),
        ('{"sku": ' + "[" * 100_000 + "}", "line 2: brackets are nested too deep"),
        ('{"sku": "' + "x" * MAX_ROW_BYTES + '"}', "line 2: longer than"),
    ],
)
def test_a_bad_line_of_jsonl_is_one_fault(tmp_path: Path, line: str, fault: str) -> None:
    good = '{"sku": "0", "photo": "a.jpg", "title": "x"}'
    rows = read_json(tmp_path, f"{good}\n{line}\n{good}\n")
    assert [bool(row.fault) for row in rows] == [False, True, False]
    assert (rows[1].fault or "").startswith(fault), rows[1].fault


@pytest.mark.parametrize("line", ["[1]", "[" * 5000, "[[1], [2]]", '"[{"'])
def test_a_first_line_that_is_no_object_is_one_fault(tmp_path: Path, line: str) -> None:
    rows = read_json(tmp_path, f'{line}\n{{"sku": "1", "photo": "a", "title": "x"}}\n')
    assert [bool(row.fault) for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"sku": "1"}]', "is one JSON array: write an object a line"),
        (b'[\n{"sku": "1"}\n]', "is one JSON array: write an object a line"),
        (b'{"sku": "1", "photo": "a"}\n', r"no column 'title' \(ingest\.manifest\.columns\.title\); it has sku, photo"),
        ('{"sku": "Größe"}'.encode("cp1252"), r"line 1 of list\.jsonl is not UTF-8"),
    ],
)
def test_jsonl_that_is_no_list_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_json(tmp_path, content)


def test_parquet_values_become_text_unchanged(tmp_path: Path) -> None:
    kinds: list[tuple[pa.DataType, list[Any], list[str | None]]] = [
        (pa.float64(), [4006381333931.0, None, 9.78e16, 0.5], ["4006381333931", None, "97800000000000000", "0.5"]),
        (pa.float32(), [0.1, 2.0, None, 1.5], ["0.1", "2", None, "1.5"]),
        (pa.int64(), [10**16 + 1, -1, 0, None], ["10000000000000001", "-1", "0", None]),
        (pa.decimal128(12, 2), [*map(decimal.Decimal, ("12.00", "1.50")), None, None], ["12", "1.50", None, None]),
        (pa.bool_(), [True, False, None, True], ["true", "false", None, "true"]),
        (pa.date32(), [datetime.date(2024, 1, 1)] * 4, ["2024-01-01"] * 4),
        (pa.timestamp("s"), [datetime.datetime(2024, 1, 1, 10, 30)] * 4, ["2024-01-01 10:30:00"] * 4),
        (pa.timestamp("s", "UTC"), [datetime.datetime(2024, 1, 1, 10, 30)] * 4, ["2024-01-01 10:30:00Z"] * 4),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None, "a"], ["a", "b", None, "a"]),
        (pa.large_string(), ["2024/01/01", "10:30", "1e16", "007"], ["2024/01/01", "10:30", "1e16", "007"]),
        (pa.binary(), [b"Gr\xc3\xb6\xc3\x9fe", None, b"", b"x"], ["Größe", None, "", "x"]),
        (pa.null(), [None] * 4, [None] * 4),
    ]  # fmt: skip
    for kind, values, expected in kinds:
        table = pa.table({"a.b": pa.array(values, kind), "photo": ["a.jpg"] * 4})
        rows = read_parquet(tmp_path, table, {"title": "a.b", "image": "photo"})
        assert [row.values["title"] for row in rows] == expected, kind


@pytest.mark.parametrize(
    ("kind", "value", "named"),
    [
        (pa.list_(pa.string()), ["Home", "Cups"], r"list<element: string>"),
        (pa.struct([("a", pa.int32())]), {"a": 1}, "struct<a: int32>"),
        (pa.map_(pa.string(), pa.int32()), [("a", 1)], "map<string, int32"),
        (pa.duration("s"), 3, "duration"),
    ],
)
def test_a_column_of_no_text_is_named_with_its_type(tmp_path: Path, kind: pa.DataType, value: Any, named: str) -> None:
    table = pa.table({"sku": ["1"], "photo": ["a.jpg"], "title": pa.array([value], kind)})
    with pytest.raises(ValueError, match=rf"column 'title' \(ingest\.manifest\.columns\.title\) .* of type {named}"):
        read_parquet(tmp_path, table)


def test_a_bad_cell_of_parquet_is_one_fault(tmp_path: Path) -> None:
    title = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    table = pa.table({"sku": [1.0, float("nan")], "photo": ["a.jpg"] * 2, "title": title})
    rows = read_parquet(tmp_path, table, COLUMNS | {"board": "sku"})
    assert rows[0].fault is None
    assert rows[1].fault == "sku is NaN: write a number, or leave it empty"
    (fault,) = (row.fault for row in read_parquet(tmp_path, table.slice(1), {"title": "title"}))
    assert fault == "title is 2 bytes that are not UTF-8: write text"


@pytest.mark.parametrize(
    ("content", "is_what"),
    [
        (b"sku,photo\n" * 20, "text: set ingest.manifest.format to csv or jsonl"),
        (b'{"sku": "1"}\n', "text: set ingest.manifest.format to csv or jsonl"),
        (b"<html>sign in</html>", "a web page"),
        (b"PK\x03\x04" + bytes(99), "a ZIP or a spreadsheet"),
        (b"ORC" + bytes(99), "ORC: write it as Parquet"),
        (b"PARE" + bytes(99), "Parquet whose footer is encrypted"),
        (b"\x80\x05" + bytes(99), "no Parquet, by its first bytes"),
    ],
)
def test_what_is_no_parquet_is_named(tmp_path: Path, content: bytes, is_what: str) -> None:
    (tmp_path / "list.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^cannot read list\.parquet as parquet: it is {is_what}"):
        list(read_parquet_rows(tmp_path / "list.parquet", "list.parquet", COLUMNS, COLUMNS, Notes()))


def test_identifiers_and_json_of_parquet_are_text(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=5).bytes, None]
    table = pa.table({
        "sku": pa.array(ids, pa.uuid()), "photo": ["a.jpg"] * 2, "title": pa.array(['"x"', None], pa.json_())
    })  # fmt: skip
    assert cells(read_parquet(tmp_path, table)) == [[str(uuid.UUID(int=5)), "a.jpg", '"x"'], [None, "a.jpg", None]]


def test_a_time_beyond_any_calendar_is_one_fault(tmp_path: Path) -> None:
    for kind in (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        title = pa.array([0, 2**31 - 1 if kind == pa.date32() else 2**62], kind)
        good, bad = read_parquet(tmp_path, pa.table({"sku": ["1", "2"], "photo": ["a.jpg"] * 2, "title": title}))
        assert good.fault is None
        assert bad.fault == "title is a time beyond any calendar: write it as text, or leave it empty", kind


@pytest.mark.parametrize("content", [b"PAR1", b""])
def test_a_broken_parquet_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read list\.parquet as parquet: ") as caught:
        list(read_parquet_rows(tmp_path / "list.parquet", "list.parquet", COLUMNS, COLUMNS, Notes()))
    assert "\n" not in str(caught.value)


def test_a_number_is_whole_without_a_point(tmp_path: Path) -> None:
    numbers = {"1.0": "1", "1.50": "1.50", "1e3": "1000", "1E+2": "100", "1e99999999": "1e99999999", "-7.0": "-7"}
    assert {token: format_number(token) for token in numbers} == numbers
    assert cells(read_json(tmp_path, json.dumps({"sku": 3.0}), {"pin_id": "sku"})) == [["3"]]


def test_a_long_text_of_parquet_is_one_fault(tmp_path: Path) -> None:
    table = pa.table({"sku": ["1", "2"], "photo": ["a.jpg"] * 2, "title": ["x" * (MAX_ROW_BYTES + 1), "y"]})
    first, second = read_parquet(tmp_path, table)
    assert first.fault == f"its texts are longer than {MAX_ROW_BYTES} characters"
    assert second.values["title"] == "y"


def test_rows_with_large_images_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canvas.sources.parquet_rows.BATCH_BYTES", 250)
    images = [bytes([200 + number]) * 100 for number in range(9)]
    pq.write_table(pa.table({"photo": pa.array(images, pa.binary())}), tmp_path / "list.parquet", use_dictionary=False)
    sizes = [batch.num_rows for batch in iterate_parquet_batches(tmp_path / "list.parquet", ["photo"])]
    assert max(sizes) <= 2
    assert sum(sizes) == 9


@pytest.mark.parametrize(
    ("struct", "expected"),
    [
        ({"bytes": b"\xff\xd8", "path": "a.jpg", "sha": "0"}, (b"\xff\xd8", "a.jpg")),
        ({"bytes": None, "path": "a.jpg", "sha": "0"}, (None, "a.jpg")),
        ({"path": "a.jpg"}, (None, "a.jpg")),
    ],
)
def test_a_struct_of_an_image_may_hold_more(tmp_path: Path, struct: dict[str, Any], expected: tuple[Any, Any]) -> None:
    kinds = {"bytes": pa.binary(), "path": pa.string(), "sha": pa.string()}
    kind = pa.struct([(name, kinds[name]) for name in struct])
    (row,) = read_parquet(tmp_path, pa.table({"photo": pa.array([struct], kind)}), {"image": "photo"})
    assert (row.image, row.values["image"]) == expected
    with pytest.raises(ValueError, match=r"is of type struct.*write paths, URLs, or the files as bytes"):
        read_parquet(tmp_path, pa.table({"photo": pa.array([{"url": "a"}])}), {"image": "photo"})


@pytest.mark.parametrize("text", ["1", " 1\u00a0", "\ufeff1", "1\u200b", "\u200e 1\u202c \u200f"])
def test_what_cannot_be_seen_round_a_name_is_no_part_of_it(text: str) -> None:
    assert trim(text) == "1"


def test_ids_that_floating_point_has_rounded_are_noted(tmp_path: Path) -> None:
    for values, noted in (([97803061574001230.0, None], True), ([4006381333931.0, float("nan")], False)):
        notes = Notes()
        read_parquet(tmp_path, pa.table({"sku": values}), {"pin_id": "sku"}, notes)
        assert bool(notes.to_metrics()) is noted
