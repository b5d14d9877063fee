"""Which boards people saved pins to: a list beside the catalogue, a row for each pin and board."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from canvas.pins.fallbacks import Notes
from canvas.sources.lists import SUFFIXES
from canvas.sources.parquet_rows import read_parquet_rows
from canvas.sources.text_rows import read_csv_rows, read_json_rows
from canvas.sources.values import Row

COLUMNS = {"pin_id": "pin_id", "board": "board"}


def read_board_saves(name: str, data: Path, notes: Notes) -> list[tuple[str, str]]:
    """Return pin id and board of every row of a list in the data directory.

    Args:
        name: Of the file below `data`: it ends in .csv, .jsonl or .parquet and has columns pin_id and board.
        data: The data directory.
        notes: Hears of rows without one of the two, which are left out.

    Raises:
        ValueError: There is no such file in it, or it cannot be read.
    """
    file = data / name
    if not file.resolve().is_relative_to(data.resolve()) or not file.is_file():
        raise ValueError(f"train_text.neighbours.saves is {name!r}: name a file in {data}/, whose content is pinned")
    kinds = [kind for kind, suffixes in SUFFIXES.items() if file.suffix.lower() in suffixes]
    if not kinds:
        endings = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise ValueError(f"train_text.neighbours.saves is {name!r}: its name must end in one of {endings}")
    edges, incomplete = [], 0
    for row in _read_rows(kinds[0], file, name, notes):
        pin_id, board = (row.values.get(column) for column in COLUMNS)
        if pin_id and board and row.fault is None:
            edges.append((pin_id.strip(), board.strip()))
        else:
            incomplete += 1
    if incomplete:
        notes.add(f"{incomplete} rows of {name} have no pin_id or board, or cannot be read, so they were left out")
    return edges


def _read_rows(kind: str, file: Path, name: str, notes: Notes) -> Iterator[Row]:
    if kind == "parquet":
        return read_parquet_rows(file, name, COLUMNS, COLUMNS, notes)
    read = read_csv_rows if kind == "csv" else read_json_rows
    return read(file, name, COLUMNS, notes)
