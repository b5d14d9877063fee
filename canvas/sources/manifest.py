"""Pins from a list of pictures that somebody else keeps: a Parquet, CSV or JSONL file, local or remote.

Everything streams through Daft: a few batches of pictures are in memory at a time, whatever the length of
the list. A row that cannot become a pin goes to the quarantine table with its reason.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from canvas.pins import tables
from canvas.pins.images import ImageLimits, normalize_image_bytes
from canvas.sources.addresses import Reader, format_error, strip_credentials

if TYPE_CHECKING:
    import daft

REQUIRED_COLUMNS = ("pin_id", "image", "title")
TEXT_COLUMNS = ("title", "description", "alt_text", "board", "category")
COUNT_COLUMNS = ("impressions", "saves", "clicks")
MAPPABLE_COLUMNS = (
    *REQUIRED_COLUMNS,
    "description",
    "alt_text",
    "board",
    "category",
    "product_id",
    "promoted",
    *COUNT_COLUMNS,
)
BATCH_SIZE = 32
"""Pictures that one worker holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestSpec:
    """Where the list is and how to read it."""

    path: str
    """Path or URL (file, http, https, s3, gs); a relative one starts at the data directory, as do relative
    picture paths in the list. Credentials for s3 and gs come from the environment."""
    format: Literal["parquet", "csv", "jsonl"]
    name: str
    """What `pins.source` says."""
    columns: dict[str, str]
    """Our column -> theirs. `pin_id`, `image` (a path or URL) and `title` are needed; `description`,
    `alt_text`, `board`, `category`, `product_id`, `promoted`, `impressions`, `saves` and `clicks` may be."""
    held_out: float
    """Fraction of products, and of pins without one, that the train split never sees."""
    max_bytes: int
    max_pixels: int
    connections: int
    timeout_seconds: float
    """For a connection, and between two parts of an answer; a failed download is tried three times."""

    def __post_init__(self) -> None:
        if missing := [column for column in REQUIRED_COLUMNS if column not in self.columns]:
            raise ValueError(f"ingest.manifest.columns lacks {', '.join(missing)}: say which column holds it")
        if unknown := sorted(self.columns.keys() - set(MAPPABLE_COLUMNS)):
            raise ValueError(
                f"ingest.manifest.columns: {', '.join(unknown)} unknown; it may map {', '.join(MAPPABLE_COLUMNS)}"
            )
        if not 0 <= self.held_out <= 0.5:
            raise ValueError(f"ingest.manifest.held_out is {self.held_out}: a fraction from 0 to 0.5")
        if min(self.max_bytes, self.max_pixels, self.connections) < 1 or self.timeout_seconds <= 0:
            raise ValueError("ingest.manifest: max_bytes, max_pixels, connections and timeout_seconds are positive")


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """What became of the rows."""

    pins: int
    quarantined: Mapping[str, int]  # by kind of reason


def ingest_manifest(spec: ManifestSpec, folder: Path, pins: Path, quarantine: Path) -> IngestCounts:
    """Write the tables `pins` (tables.PINS) and `quarantine` (tables.QUARANTINE) from the list.

    Raises `ValueError` for a list that is missing or unreadable, lacks a mapped column, has no rows, or of
    which no row became a pin.
    """
    rows = 0
    reasons: Counter[str] = Counter()
    reader = Reader(folder, spec.connections, spec.timeout_seconds)
    frame = _scan_manifest(spec, reader)
    with tables.Writer(pins, tables.PINS) as good, tables.Writer(quarantine, tables.QUARANTINE) as bad:
        for batch in _load_batches(frame, spec, reader, _find_repeated_ids(frame, spec)):
            kept, refused = [], []
            for row in batch:
                rows += 1
                try:
                    kept.append(_build_pin(row, spec))
                except ValueError as error:
                    refused.append({"row": rows, "uri": strip_credentials(row["image"]), "reason": str(error)})
                    reasons[_generalize_reason(str(error))] += 1
            good.add(pa.Table.from_pylist(kept, schema=tables.PINS))
            bad.add(pa.Table.from_pylist(refused, schema=tables.QUARANTINE))
    if not rows:
        raise ValueError(f"{strip_credentials(spec.path)} has no rows: nothing to ingest")
    if not good.rows:
        raise ValueError(
            f"none of the {rows} rows of {strip_credentials(spec.path)} became a pin: {_format_top_reasons(reasons)}"
        )
    return IngestCounts(good.rows, reasons)


def assign_split(product_id: str | None, pin_id: str, held_out: float) -> str:
    """The split by hash of the product, or of the pin if it has none: the same for every delivery of the list."""
    digest = hashlib.blake2b((product_id or pin_id).encode(), digest_size=8).digest()
    if int.from_bytes(digest, "big") / 2**64 >= held_out:
        return "train"
    return "unseen_product" if product_id else "unseen_view"


def _scan_manifest(spec: ManifestSpec, reader: Reader) -> daft.DataFrame:
    """The mapped columns under our names, all as text."""
    import daft
    from daft.exceptions import DaftCoreException

    where, config = reader.located(spec.path), reader.config()
    shown = strip_credentials(spec.path)
    text = daft.DataType.string()
    try:
        if spec.format == "csv":  # as text: inferred numbers would lose the zeros of an id such as 007
            hints = dict.fromkeys(daft.read_csv(where, io_config=config).column_names, text)
            frame = daft.read_csv(where, schema=hints, io_config=config)
        elif spec.format == "jsonl":
            frame = daft.read_json(where, io_config=config)
        else:
            frame = daft.read_parquet(where, io_config=config)
    except (DaftCoreException, OSError, ValueError) as error:
        raise ValueError(f"cannot read {shown} as {spec.format}: {format_error(error, where)}") from error
    for ours, theirs in spec.columns.items():
        if theirs not in frame.column_names:
            has = ", ".join(frame.column_names)
            raise ValueError(f"{shown} has no column {theirs!r} (ingest.manifest.columns.{ours}); it has {has}")
    return frame.select(*(frame[theirs].cast(text).alias(ours) for ours, theirs in spec.columns.items()))


def _find_repeated_ids(frame: daft.DataFrame, spec: ManifestSpec) -> set[str]:
    """The pin ids that occur more than once; Daft counts, so that only these come into memory here."""
    import daft
    from daft.exceptions import DaftCoreException

    try:
        counted = frame.select("pin_id").groupby("pin_id").agg(daft.col("pin_id").count().alias("rows"))
        return set(counted.where("rows > 1").to_pydict()["pin_id"])
    except (DaftCoreException, OSError) as error:
        raise ValueError(
            f"cannot read {strip_credentials(spec.path)} as {spec.format}: {format_error(error, spec.path)}"
        ) from error


def _load_batches(
    frame: daft.DataFrame, spec: ManifestSpec, reader: Reader, repeated: set[str]
) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows in the list's order, each with its picture or the reason why there is none."""
    import daft

    picture = daft.DataType.struct(
        {
            "data": daft.DataType.binary(),
            "width": daft.DataType.int32(),
            "height": daft.DataType.int32(),
            "reason": daft.DataType.string(),
        }
    )

    @daft.func.batch(return_dtype=picture, batch_size=BATCH_SIZE)
    def fetched(uris: daft.Series) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(spec.connections) as pool:
            return list(pool.map(lambda uri: _fetch_image(uri, spec, reader), uris.to_pylist()))

    seen: set[str] = set()
    for batch in frame.with_column("picture", fetched(frame["image"])).to_arrow_iter(results_buffer_size=1):
        for start in range(0, batch.num_rows, BATCH_SIZE):
            rows = batch.slice(start, BATCH_SIZE).to_pylist()
            for row in rows:
                row["repeats"] = row["pin_id"] in seen
                if row["pin_id"] in repeated:
                    seen.add(row["pin_id"])
            yield rows


def _fetch_image(uri: str | None, spec: ManifestSpec, reader: Reader) -> dict[str, Any]:
    """The picture at `uri`, checked and normalised, or the reason why there is none."""
    try:
        limits = ImageLimits(max_bytes=spec.max_bytes, max_pixels=spec.max_pixels)
        data, width, height = normalize_image_bytes(reader.read(uri, spec.max_bytes), limits)
        return {"data": data, "width": width, "height": height, "reason": None}
    except ValueError as error:
        return {"data": None, "width": None, "height": None, "reason": str(error)}


def _build_pin(row: Mapping[str, Any], spec: ManifestSpec) -> dict[str, Any]:
    """The row of tables.PINS; `ValueError` with the reason if there cannot be one."""
    if not (row["pin_id"] or "").strip():
        raise ValueError("pin_id is empty")
    if row["repeats"]:
        raise ValueError(f"pin_id {row['pin_id']!r} occurred before")
    if row["picture"]["reason"] is not None:
        raise ValueError(row["picture"]["reason"])
    product = (row.get("product_id") or "").strip() or None
    counts = {name: _parse_count(name, row.get(name)) for name in COUNT_COLUMNS}
    return {
        "pin_id": row["pin_id"],
        "image": row["picture"]["data"],
        "width": row["picture"]["width"],
        "height": row["picture"]["height"],
        **{name: row.get(name) or "" for name in TEXT_COLUMNS},
        "product_id": product,
        "promoted": _parse_flag(row.get("promoted")),
        **counts,
        "source": spec.name,
        "split": assign_split(product, row["pin_id"], spec.held_out),
    }


def _parse_count(name: str, text: str | None) -> int | None:
    """A count; null where the list says nothing."""
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 2**63 and value == int(value)):
        raise ValueError(f"{name} is {text!r}: a count is a whole number from 0")
    return int(value)


def _parse_flag(text: str | None) -> bool:
    """A flag; absent means false."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    word = (text or "").strip().lower()
    if word not in known:
        raise ValueError(f"promoted is {text!r}: write true or false")
    return known[word]


def _generalize_reason(reason: str) -> str:
    """The reason without what differs from row to row."""
    return re.sub(r"\s+", " ", re.sub(r"'[^']*'|\d+", "…", reason.partition(":")[0]))[:60]


def _format_top_reasons(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count} rows)" for reason, count in reasons.most_common(3))
