"""Rows of CSV and JSONL files, one at a time: a row that is no row has a fault, and the next one is read.

A row costs MAX_ROW_BYTES and MAX_ROW_LINES at most. A file that is not UTF-8 stops the list, with the line: what its
owner wrote could only be guessed.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from canvas.pins.fallbacks import Notes
from canvas.sources.signatures import HEAD_BYTES, describe_content
from canvas.sources.values import NoNumber, Row, format_number, format_value, trim

MAX_ROW_BYTES = 2**20
"""Bytes of a row; a longer one is a fault."""
MAX_ROW_LINES = 10_000
"""Lines of a row of CSV. A quote that is not closed by then is given up, and the next line is tried as a row; where so
many lines after it are none, it stops the list."""
MAX_LINES_AGAIN = 1_000_000
"""Lines of a CSV file that are read again after quotes that were given up; more stop the list."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_NAMES = 30  # of columns, in a message
ARRAY_START = re.compile(r"\[\s*(\{|$)")
"""How a file begins that is one array of objects; `[1]` is a bad row."""
JSON_START = re.compile(r"\s*(\{|\[\s*\{)\s*(\"|$)")
"""How JSON begins that is read as CSV by mistake."""

Line = tuple[int, str | None]
"""Number from 1, and text with its end; None: longer than MAX_ROW_BYTES."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file parts its cells."""

    delimiter: str
    skipinitialspace: bool  # ", " parts the cells


def read_csv_rows(file: Path, name: str, columns: Mapping[str, str], notes: Notes) -> Iterator[Row]:
    """Yield the rows of a CSV file; `columns`: ours -> its own, `name`: what messages call it.

    Commas part the cells, unless the columns are only there by semicolons, tabs or bars, which is noted.

    Raises:
        ValueError: For a file that is not UTF-8, and one that lacks a column or has it twice.
    """
    dialect, skipped = _find_dialect(file, name, columns, notes)
    with file.open("rb") as opened:
        records = _read_records(read_lines(opened, name), name, dialect, skipped)
        _, header = next(records, (0, "it is not there"))
        if isinstance(header, str):
            raise ValueError(f"the header of {name} cannot be read: {header}")
        places = {ours: find_column(header, theirs, ours, name, dialect.delimiter) for ours, theirs in columns.items()}
        for line, cells in records:
            if isinstance(cells, str):
                yield Row({}, fault=f"line {line}: {cells}")
            else:
                yield Row({ours: cells[place] or None for ours, place in places.items()})


@dataclass(slots=True)
class JsonKeys:
    """The keys that the objects of a list have, over all its parts: one that no object has is a slip in params."""

    columns: Mapping[str, str]  # ours -> theirs
    names: dict[str, None] = field(default_factory=dict)  # of keys, up to MAX_NAMES and one object's
    absent: dict[str, str] = field(init=False)  # those of `columns` that no object had so far

    def __post_init__(self) -> None:
        self.absent = dict(self.columns)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take note of an object's keys."""
        self.absent = {ours: theirs for ours, theirs in self.absent.items() if trim(theirs) not in record}
        if len(self.names) < MAX_NAMES:
            self.names |= dict.fromkeys(list(record)[:MAX_NAMES])

    def check(self, name: str) -> None:
        """Raise `ValueError` for a column that no object of the list `name` has."""
        for ours, theirs in self.absent.items():
            if self.names:
                find_column(list(self.names), theirs, ours, name)


def read_json_rows(
    file: Path, name: str, columns: Mapping[str, str], notes: Notes, keys: JsonKeys | None = None
) -> Iterator[Row]:
    """Yield the rows of a JSONL file: an object a line. Arguments and errors as `read_csv_rows`.

    `keys`: Those of a list in parts, which the caller checks at its end; None: this file is the list.
    """
    list_keys = JsonKeys(columns) if keys is None else keys
    rows = 0
    with file.open("rb") as opened:
        for line, text in read_lines(opened, name):
            if text is not None and not (text := text.strip(" \t\r\n\ufeff\x1e")):
                continue
            rows += 1
            if rows == 1 and text is not None and ARRAY_START.match(text):
                raise ValueError(f"{name} is one JSON array: write an object a line, for example with `jq -c '.[]'`")
            try:
                record = _parse_record(text)
                list_keys.add(record)
                present = {ours: trim(theirs) for ours, theirs in columns.items() if trim(theirs) in record}
                row = Row({ours: _format_cell(record, theirs) for ours, theirs in present.items()})
            except ValueError as error:
                row = Row({}, fault=f"line {line}: {error}")
            yield row
    if keys is None:
        list_keys.check(name)


def read_lines(file: BinaryIO, name: str) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, without a byte-order mark.

    Raises:
        ValueError: For a file that is no UTF-8 text, with the line and what it may be.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if (kind := describe_content(head)) is not None:
        raise ValueError(f"{name} is {kind}")
    if head.count(0) * 4 > len(head):
        raise ValueError(f"{name} is no UTF-8 text, it is full of zero bytes: save it as UTF-8")
    if b"\r" in head and b"\n" not in head:
        raise ValueError(f"{name} ends its lines with carriage returns alone: save it with line feeds")
    number = 0
    while data := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(data) > MAX_ROW_BYTES:
            while data and not data.endswith(b"\n"):
                data = file.readline(MAX_ROW_BYTES)
            yield number, None
        else:
            yield number, _decode_line(data.removeprefix(codecs.BOM_UTF8) if number == 1 else data, number, name)


def find_column(names: Sequence[str], theirs: str, ours: str, name: str, delimiter: str = ",") -> int:
    """Return the place of column `theirs` among `names`, spaces round it aside. `ValueError` unless it stands once."""
    exact = [place for place, header in enumerate(names) if header == theirs]
    places = exact or [place for place, header in enumerate(names) if trim(header) == trim(theirs)]
    key = f"column {theirs!r} (ingest.manifest.columns.{ours})"
    if not places:
        parted = "" if delimiter == "," else f" by {DELIMITERS[delimiter]}"
        listed = ", ".join(trim(header)[:MAX_NAMES] for header in names[:MAX_NAMES]) or "no column at all"
        raise ValueError(f"{name} has no {key}; it has{parted} {listed}{', ...' * (len(names) > MAX_NAMES)}")
    if len(places) > 1:
        raise ValueError(f"{name} has {key} {len(places)} times: rename all but one")
    return places[0]


class _Lines:
    """Feeds csv.reader, remembers the lines of the record at hand, and takes back those that were no part of it."""

    def __init__(self, lines: Iterator[Line], name: str) -> None:
        self._lines = lines
        self._name = name
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []
        self._size = 0
        self._read_again = 0
        self._unclosed: int | None = None  # the first line that was given up since the last row

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self._size += len(line[1] or "")
        if line[1] is None or self._size > MAX_ROW_BYTES or len(self.taken) > MAX_ROW_LINES:
            raise csv.Error("too long")
        return line[1]

    def start_record(self) -> None:
        self.taken, self._size = [], 0

    def end_row(self) -> None:
        """Take note that the lines at hand are a row."""
        self._unclosed = None

    def end_no_row(self) -> None:
        """Take note that the lines at hand are none. `ValueError` where they have been none for too long."""
        number = self.taken[0][0]
        if self._unclosed is not None and number - self._unclosed > MAX_ROW_LINES:
            raise ValueError(
                f"line {self._unclosed} of {self._name} opens a quote that no line closes, and the {MAX_ROW_LINES} "
                "lines after it are no rows: close the quote, or leave its row out"
            )

    def keep_first(self) -> None:
        """Take back all lines of the record but its first. `ValueError` where that was done too often."""
        number, again = self.taken[0][0], len(self.taken) - 1
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
        self._unclosed = self._unclosed or (number if again else None)
        self._read_again += again
        if self._read_again > MAX_LINES_AGAIN:
            raise ValueError(
                f"line {number} of {self._name} is one of many that open a quote that no line closes: write quotes "
                'inside a cell twice (""), and quotes round the cell'
            )


def _read_records(
    lines: Iterator[Line], name: str, dialect: Dialect, skipped: int
) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the first line's number and the cells of each record after `skipped` lines, or what is wrong with it. The
    first one is the header. Of several lines that make no record only the first is given up.

    Raises:
        ValueError: For quotes without an end that would make each line cost thousands.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    source = _Lines(lines, name)
    width = None
    for _ in range(skipped):
        next(source)
    while True:
        source.start_record()
        fault = None
        try:
            cells = next(csv.reader(source, strict=True, delimiter=dialect.delimiter,
                                    skipinitialspace=dialect.skipinitialspace))  # fmt: skip
        except StopIteration:
            return
        except csv.Error as error:
            fault = _explain_csv_error(error, source.taken[0][1])
            source.keep_first()
        else:
            width = width or len(cells)
            if cells and len(cells) == width:
                source.end_row()
                yield source.taken[0][0], cells
                continue
            if cells:
                several = len(source.taken) > 1
                fault = UNCLOSED if several else f"{len(cells)} cells where the header has {width}"
                source.keep_first()
        source.end_no_row()
        if fault is not None:  # a blank line has none
            yield source.taken[0][0], fault


UNCLOSED = "a quote is opened and not closed"


def _explain_csv_error(error: csv.Error, first_line: str | None) -> str:
    if first_line is None:
        return f"longer than {MAX_ROW_BYTES} bytes"
    if str(error) in ("too long", "unexpected end of data"):
        return UNCLOSED
    if "new-line" in str(error):
        return "a carriage return stands inside a cell without quotes"
    return f"a quote stands where none may ({error})"


def _find_dialect(file: Path, name: str, columns: Mapping[str, str], notes: Notes) -> tuple[Dialect, int]:
    """Return how the cells are parted, and how many lines stand before the header."""
    header, skipped = "", 0
    with file.open("rb") as opened:
        for _, text in read_lines(opened, name):
            if text is None:
                raise ValueError(f"the header of {name} is longer than {MAX_ROW_BYTES} bytes: is it CSV?")
            if text.strip() and not (skipped == 0 and text.startswith("sep=")):  # a spreadsheet's hint
                header = text
                break
            skipped += 1
    if not header:
        raise ValueError(f"{name} is empty: it needs a header, and a row an image")
    headers = {delimiter: _split_header(header, delimiter) for delimiter in DELIMITERS}
    wanted = {trim(theirs) for theirs in columns.values()}
    fitting = [delimiter for delimiter, header in headers.items() if wanted <= {trim(cell) for cell in header}]
    if not fitting and JSON_START.match(header):
        raise ValueError(f"{name} is JSON: set ingest.manifest.format to jsonl, which is an object a line")
    delimiter = fitting[0] if fitting else max(headers, key=lambda delimiter: len(headers[delimiter]))
    if delimiter != "," and fitting:
        notes.add(f"{name} is parted by {DELIMITERS[delimiter]}, not by commas, and was read so")
    spaced = any(cell.startswith(" ") for cell in headers[delimiter][1:])
    if spaced:
        notes.add(f"{name} has a space after its {DELIMITERS[delimiter]}, which was left out")
    return Dialect(delimiter, spaced), skipped


def _split_header(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        return []


def _decode_line(data: bytes, number: int, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        near = data[max(0, error.start - 20) : error.end + 20].decode("cp1252", errors="replace").strip()
        raise ValueError(
            f"line {number} of {name} is not UTF-8 (byte 0x{data[error.start]:02x}; read as Windows-1252 it says "
            f"{near!r}): save it as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8`"
        ) from None


def _parse_record(text: str | None) -> dict[str, Any]:
    """Parse a line of JSONL; `ValueError` in one sentence for what is no object."""
    if text is None:
        raise ValueError(f"longer than {MAX_ROW_BYTES} bytes")
    try:
        record = json.loads(
            text, parse_float=format_number, parse_int=str, parse_constant=NoNumber, object_pairs_hook=_build_object
        )
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise ValueError(f"no JSON, {what[0].lower()}{what[1:]} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("no JSON object: write {...} on every line")
    return {trim(key): value for key, value in record.items()}


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {key[:MAX_NAMES]!r} stands twice")
    return built


def _format_cell(record: Mapping[str, Any], theirs: str) -> str | None:
    try:
        return format_value(record[theirs])
    except ValueError as error:
        raise ValueError(f"{theirs} {error}") from None
