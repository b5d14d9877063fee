from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canvas.pins.fallbacks import Notes
from canvas.sources.board_saves import read_board_saves

EDGES = [("p1", "Kitchen"), ("p2", "Kitchen"), ("p1", "Garden")]


def write_csv(folder: Path) -> str:
    (folder / "saves.csv").write_text("board,pin_id,when\n" + "".join(f"{b}, {p} ,now\n" for p, b in EDGES))
    return "saves.csv"


def write_jsonl(folder: Path) -> str:
    (folder / "saves.jsonl").write_text("".join(f'{{"pin_id": "{p}", "board": "{b}"}}\n' for p, b in EDGES))
    return "saves.jsonl"


def write_parquet(folder: Path) -> str:
    pins, boards = zip(*EDGES, strict=True)
    pq.write_table(pa.table({"pin_id": pins, "board": boards}), folder / "saves.parquet")
    return "saves.parquet"


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])
def test_every_format_gives_the_same_rows(tmp_path: Path, write) -> None:
    notes = Notes()
    assert read_board_saves(write(tmp_path), tmp_path, notes) == EDGES
    assert notes.to_metrics() == {}


def test_incomplete_rows_are_left_out_and_noted(tmp_path: Path) -> None:
    (tmp_path / "saves.csv").write_text("pin_id,board\np1,Kitchen\n,Garden\np3,\n")
    notes = Notes()
    assert read_board_saves("saves.csv", tmp_path, notes) == [("p1", "Kitchen")]
    assert notes.to_metrics() == {
        "notes": ["2 rows of saves.csv have no pin_id or board, or cannot be read, so they were left out"]
    }


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_csv(tmp_path)
    for name in ("saves.csv", "../saves.csv", str(tmp_path / "saves.csv")):
        with pytest.raises(ValueError, match=f"neighbours.saves is '{name}': name a file in .*data/"):
            read_board_saves(name, tmp_path / "data", Notes())
    (tmp_path / "data" / "saves.txt").touch()
    with pytest.raises(ValueError, match=r"its name must end in one of \.parquet, \.csv, "):
        read_board_saves("saves.txt", tmp_path / "data", Notes())
    (tmp_path / "data" / "saves.csv").write_text("pin,board\np1,Kitchen\n")
    with pytest.raises(ValueError, match="pin_id"):
        read_board_saves("saves.csv", tmp_path / "data", Notes())
