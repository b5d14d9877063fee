"""Rows of Parquet files, a few at a time: memory follows the row, not the file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from canvas.pins.fallbacks import Notes
from canvas.sources.signatures import HEAD_BYTES, describe_content, is_text
from canvas.sources.text_rows import MAX_ROW_BYTES, find_column
from canvas.sources.values import NoTime, Row, format_value

ROWS_AT_ONCE = 32
BATCH_BYTES = 64 * 2**20
"""Bytes of the rows that are read at once, on average: where they hold large images, fewer are."""
BUFFER_BYTES = 2**16
MAX_EXACT = 2**53  # beyond it 64-bit floating-point numbers leave whole ones out
MAX_PATH_BYTES = 4096  # bytes that are longer are no path
MAGIC = b"PAR1"
OUT_OF_RANGE = "<value out of range"
"""How Arrow begins the text of a time that no calendar has."""


def read_parquet_rows(
    file: Path, name: str, columns: Mapping[str, str], needed: Collection[str], notes: Notes
) -> Iterator[Row]:
    """Yield the rows of a Parquet file with the columns `needed` (of ours); all `columns` are looked for.

    Arguments and errors as `read_csv_rows`; the column of images may hold the files themselves, as binary or as a
    struct of `bytes` and `path`.

    Raises:
        ValueError: For a column whose type is no text or number, too, and a file that is no Parquet.
    """
    _check_magic(file, name)
    try:
        with pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as opened:
            schema = opened.schema_arrow
            fields = {ours: schema.field(find_column(schema.names, theirs, ours, name))
                      for ours, theirs in columns.items()}  # fmt: skip
            for ours, field in fields.items():
                if ours != "image" or not _holds_images(field.type):
                    _check_type(field, ours, name)
        names = {ours: fields[ours].name for ours in needed}
        for batch in iterate_parquet_batches(file, [*names.values()]):
            for theirs in names.values():
                if _has_gaps(batch[theirs]):
                    notes.add(
                        f"column {theirs!r} of {name} is of type {batch[theirs].type} and holds numbers beyond 2^53, "
                        "where not every whole number has a place: write them as text or as integers"
                    )
            yield from _read_batch(batch, names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {name} as parquet: {' '.join(str(error).split())[:300]}") from None


def _check_magic(file: Path, name: str) -> None:
    """Raise ValueError, which says what it is instead, for a file that does not begin as Parquet does."""
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    if not head or head.startswith(MAGIC):
        return
    text = "text: set ingest.manifest.format to csv or jsonl" if is_text(head) else "no Parquet, by its first bytes"
    raise ValueError(f"cannot read {name} as parquet: it is {describe_content(head) or text}")


def iterate_parquet_batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the columns a few rows at a time: up to ROWS_AT_ONCE, and about BATCH_BYTES by the largest row group."""
    with pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as opened:
        yield from opened.iter_batches(_count_rows_at_once(opened.metadata), columns=columns)


def _count_rows_at_once(metadata: pq.FileMetaData) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0.0)
    return int(min(ROWS_AT_ONCE, max(1.0, BATCH_BYTES // max(1.0, largest))))


def _has_gaps(column: pa.Array) -> bool:
    """Tell a column of floating-point numbers that holds such as may stand for their neighbours."""
    if not pa.types.is_float64(column.type):
        return False
    largest = pc.max(pc.abs(pc.if_else(pc.is_finite(column), column, 0.0))).as_py()
    return bool(largest is not None and largest > MAX_EXACT)


def _read_batch(batch: pa.RecordBatch, names: Mapping[str, str]) -> Iterator[Row]:
    columns = {ours: _list_values(batch[theirs]) for ours, theirs in names.items()}
    for place in range(batch.num_rows):
        values: dict[str, str | None] = {}
        image: bytes | None = None
        try:
            for ours, column in columns.items():
                value = column[place]
                if ours == "image":
                    image, value = _split_image(value)
                try:
                    values[ours] = format_value(value)
                except ValueError as error:
                    raise ValueError(f"{names[ours]} {error}") from None
            if sum(len(value) for value in values.values() if value) > MAX_ROW_BYTES:
                raise ValueError(f"its texts are longer than {MAX_ROW_BYTES} characters")
            yield Row(values, image)
        except ValueError as error:
            yield Row({}, fault=str(error))


def _split_image(value: object) -> tuple[bytes | None, object]:
    """Return the bytes and the path of an image's cell: bytes that read as a line of text are a path."""
    path: object = None
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
    if not isinstance(value, bytes):
        return None, path if value is None else value
    try:
        text = value[: MAX_PATH_BYTES + 1].decode()
    except UnicodeDecodeError:
        return value, path
    return (None, text) if len(value) <= MAX_PATH_BYTES and text.isprintable() else (value, path)


def _list_values(column: pa.Array) -> list[Any]:
    """Return a column's values: text as bytes, which need not be UTF-8, and dates and times as text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column.type, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(column.type, pa.JsonType):
        column = column.storage
    kind = column.type
    if pa.types.is_struct(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind) and kind.tz is not None:  # in UTC
        return [_format_time(text, "Z") for text in column.cast(pa.timestamp(kind.unit)).cast(pa.string()).to_pylist()]
    if pa.types.is_temporal(kind):
        return [_format_time(text) for text in column.cast(pa.string()).to_pylist()]
    if _is_text(kind):
        return column.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]
    values = column.to_pylist()
    if pa.types.is_float32(kind):  # as it is written, not as 64 bits show it
        return [value if value is None else float(str(np.float32(value))) for value in values]
    return values  # type: ignore[no-any-return]


def _format_time(text: str | None, zone: str = "") -> str | NoTime | None:
    """Return a date or time as Arrow writes it, without a fraction of zeros."""
    if text is None:
        return None
    return NoTime() if text.startswith(OUT_OF_RANGE) else re.sub(r"\.0+$", "", text) + zone


def _holds_images(kind: pa.DataType) -> bool:
    """Tell binary, and the struct of `bytes` and `path`, whatever else it holds, that data sets of images have."""
    if pa.types.is_struct(kind):
        types = {kind.field(number).name: kind.field(number).type for number in range(kind.num_fields)}
        return _is_binary(types["bytes"]) if "bytes" in types else _is_text(types.get("path", pa.null()))
    return _is_binary(kind)


def _check_type(field: pa.Field, ours: str, name: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if isinstance(kind, pa.UuidType | pa.JsonType):
        kind = kind.storage_type
    numbers = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null
    times = pa.types.is_date, pa.types.is_time, pa.types.is_timestamp
    if not any(check(kind) for check in (_is_text, _is_binary, *numbers, *times)):
        fix = "paths, URLs, or the files as bytes" if ours == "image" else "one text or number a row"
        raise ValueError(
            f"column {field.name!r} (ingest.manifest.columns.{ours}) of {name} is of type {field.type}: write {fix}"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    checks = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary
    return any(check(kind) for check in checks)
