"""Lists of every format with rows that are no rows: good ones become pins unchanged, the others go to quarantine.

In half of the cases some bytes of the file are then changed: it is read, or refused in one sentence.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.images import encode_png
from canvas.sources.manifest import ManifestSpec, ingest_manifest
from canvas.sources.text_rows import MAX_ROW_BYTES

IMAGE = encode_png(Image.new("RGB", (24, 16), "teal"))
TEXTS = (
    "2024/01/01", "10:30", "007", "1e16", "4006381333931.0", "NaN", "null", "true", "=1+1", "Größe M", "杯子", "🦊",
    'a "quote"', "comma, semi; bar|tab\t", "two\nlines", "  spaces  ", "", "x" * 5000, "<script>", "{}", "[1]", "\\",
    "\u2028", "\x00", "\x1b[31m", "%s%n", "../..",
)  # fmt: skip
COLUMNS = {"pin_id": "sku", "image": "photo", "title": "name", "saves": "saved"}
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is written, and whether it is a pin."""

    cells: dict[str, Any]
    raw: str | None  # a line that stands in its place
    good: bool


def try_case(seed: int) -> str | None:
    """Ingest the list of `seed`; return what was changed, lost or said wrongly."""
    draw = np.random.default_rng(seed)
    kind = ("csv", "jsonl", "parquet")[seed % 3]
    lines = [_draw_line(number, kind, draw) for number in range(int(draw.integers(1, 9)))]
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(place)
        (folder / "a[1].png").write_bytes(IMAGE)
        data = WRITERS[kind](lines, draw)
        if broken := draw.random() < 0.5:
            data = _break_bytes(data, draw)
        (folder / f"list.{kind}").write_bytes(data)
        spec = ManifestSpec(
            path=f"list.{kind}",
            format=kind,  # type: ignore[arg-type]
            name="fuzz",
            columns=COLUMNS,
            held_out=0.2,
            held_out_by="product",
            max_bytes=10**6,
            max_pixels=10**6,
            connections=1,
            timeout_seconds=1.0,
            download_seconds=5.0,
            roots=[],
            hosts=None,
            user_agent="fuzz",
        )
        try:
            ingest_manifest(spec, folder, folder / "pins", folder / "quarantine", Notes())
        except ValueError as error:
            return _judge_refusal(str(error), broken or not any(line.good for line in lines))
        return None if broken else _compare(lines, folder)


def _judge_refusal(sentence: str, expected: bool) -> str | None:
    if "\n" in sentence or len(sentence) > 1000:
        return f"no sentence: {sentence[:300]!r}"
    return None if expected else f"a good list was refused: {sentence}"


def _compare(lines: list[Line], folder: Path) -> str | None:
    pins = tables.read(folder / "pins", ["pin_id", "title", "saves"]).to_pylist()
    actual = [(pin["pin_id"], pin["title"], pin["saves"]) for pin in pins]
    good = [line.cells for line in lines if line.good]
    expected = [(cells["sku"], cells["name"], int(cells["saved"])) for cells in good]
    if actual != expected:
        return f"pins are {actual!r:.300}, expected {expected!r:.300}"
    quarantined = tables.read(folder / "quarantine").to_pylist()
    if len(quarantined) < len(lines) - len(good) or not all(row["reason"].strip() for row in quarantined):
        return f"quarantine is {quarantined!r:.300}"
    return None


def _draw_line(number: int, kind: str, draw: np.random.Generator) -> Line:
    text = str(draw.choice(np.array(TEXTS, dtype=object)))
    cells = {"sku": f"{number:03d}", "photo": "a[1].png", "name": text, "saved": str(int(draw.integers(0, 99)))}
    if draw.random() < 0.6:
        return Line(cells, None, True)
    faults: list[tuple[dict[str, Any], str | None]] = [
        ({"photo": "missing.png"}, None),
        ({"photo": ""}, None),
        ({"photo": "x" * 10_000}, None),
        ({"photo": "a\x00.png"}, None),
        ({"sku": "  "}, None),
        ({"saved": "-1"}, None),
        ({"saved": "1.5"}, None),
        ({"saved": "9" * 400}, None),
        ({"saved": "NaN"}, None),
    ]
    if kind == "csv":
        faults += [({}, line) for line in ("x", "1,2,3,4,5,6", '"x" y,1,2,3', "x" * (MAX_ROW_BYTES + 10))]
    if kind == "jsonl":
        faults += [({"name": ["x"]}, None), ({"photo": {}}, None), ({"sku": float("nan")}, None)]
        faults += [({}, line) for line in ("[1]", "{", '"x"', "[" * 5000, '{"sku": "\\ud800"}', '{"a": 1, "a": 2}')]
        faults += [({}, '{"sku": "' + "x" * MAX_ROW_BYTES + '"}')]
    changes, raw = faults[int(draw.integers(len(faults)))]
    return Line(cells | changes, raw, False)


def _write_csv(lines: list[Line], draw: np.random.Generator) -> bytes:
    delimiter = DELIMITERS[int(draw.integers(len(DELIMITERS)))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(COLUMNS.values()), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    for line in lines:
        if line.raw is None:
            writer.writerow(line.cells)
        else:
            buffer.write(line.raw.replace(",", delimiter) + "\r\n")
        buffer.write("\r\n" * int(draw.integers(2)))
    return ("\ufeff" * int(draw.integers(2)) + buffer.getvalue()).encode()


def _write_jsonl(lines: list[Line], draw: np.random.Generator) -> bytes:
    texts = [json.dumps(line.cells, ensure_ascii=False) if line.raw is None else line.raw for line in lines]
    return ("\ufeff" * int(draw.integers(2)) + "\n\n".join(texts) + "\n" * int(draw.integers(2))).encode()


def _write_parquet(lines: list[Line], draw: np.random.Generator) -> bytes:
    table = pa.Table.from_pylist([line.cells for line in lines])
    if draw.random() < 0.5:
        table = table.set_column(2, "name", table["name"].cast(pa.binary()))
    if draw.random() < 0.3:  # the files themselves, beside paths
        photos = [IMAGE if line.cells["photo"] == "a[1].png" else str(line.cells["photo"]).encode() for line in lines]
        table = table.set_column(1, "photo", pa.array(photos, pa.binary()))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _break_bytes(data: bytes, draw: np.random.Generator) -> bytes:
    """Change, drop or repeat some bytes; each also in the header."""
    for _ in range(int(draw.integers(1, 5))):
        place = int(draw.integers(0, max(1, min(len(data), int(draw.choice([60, 2000]))))))
        length = int(draw.integers(1, 9))
        match int(draw.integers(4)):
            case 0:
                data = data[:place] + draw.bytes(length) + data[place + length :]
            case 1:
                data = data[:place] + data[place + length :]
            case 2:
                data = data[:place] + data[place : place + length] * 2 + data[place:]
            case _:
                data = data[: max(1, len(data) - length)]
    return data


WRITERS: dict[str, Callable[[list[Line], np.random.Generator], bytes]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
