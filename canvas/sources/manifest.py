"""Pins from a list of images that somebody else keeps: a Parquet, CSV or JSONL file, local or remote.

Everything streams through Daft: a few batches of images are in memory at a time, whatever the length of the list. A
row that cannot become a pin goes to the quarantine table with its reason.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.images import ImageLimits, normalize_image_bytes
from canvas.ranges import Count, Half, Positive
from canvas.sources.addresses import Reader, format_error, strip_credentials
from canvas.sources.downloads import DownloadRules
from canvas.sources.splits import HeldOutUnit, SplitAssigner

if TYPE_CHECKING:
    import daft

TEXT_COLUMNS = ("title", "description", "alt_text", "board", "category")
COUNT_COLUMNS = ("impressions", "saves", "clicks")
MAPPABLE_COLUMNS = ("pin_id", "image", *TEXT_COLUMNS, "product_id", "seller", "promoted", *COUNT_COLUMNS)
BATCH_SIZE = 32
"""Images that one worker holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestSpec:
    """Where the list is and how to read it."""

    path: str
    """Path or URL (file, http, https, s3, gs); a relative one starts at the data directory, as do relative
    image paths in the list. Credentials for s3 and gs come from the environment."""
    format: Literal["parquet", "csv", "jsonl"]  # of the list
    name: str  # what `pins.source` says
    columns: dict[str, str]
    """Our column -> theirs. `image` (a path or URL) is needed; `title`, `description`, `alt_text`, `board`, `category`,
    `promoted`, `impressions`, `saves` and `clicks` may be, and `seller` where held_out_by names it. Without `pin_id` an
    image's digest names it, without `product_id` every image is a product of its own."""
    held_out: Half
    """Fraction of products, and of pins without one, that the train split never sees; 0: what was trained is scored on
    pins that training saw."""
    held_out_by: HeldOutUnit
    """What `held_out` is a fraction of: single products, or whole boards or sellers, with every product of theirs."""
    max_bytes: Count  # of an image's file; larger ones are quarantined
    max_pixels: Count  # of an image, width * height; larger ones are quarantined
    connections: Count  # downloads at a time
    timeout_seconds: Positive
    """For a connection, and between two parts of an answer; a failed download is tried three times."""
    download_seconds: Positive  # for a whole download, its tries and redirects among it
    roots: list[str]
    """Folders, besides the data directory, whose files rows may name; relative ones start there."""
    hosts: list[str] | None
    """Hosts and buckets that rows may name, "*.shop.com" for all below; null: any host at a public address."""
    user_agent: str  # that servers of images see

    @property
    def limits(self) -> ImageLimits:
        """What an image may cost."""
        return ImageLimits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)

    def build_reader(self, folder: Path) -> Reader:
        """Return what reads the list and its images, relative to `folder`."""
        rules = DownloadRules(
            hosts=self.hosts,
            timeout_seconds=self.timeout_seconds,
            deadline_seconds=self.download_seconds,
            user_agent=self.user_agent,
            connections=self.connections,
        )
        return Reader(folder=folder, roots=self.roots, rules=rules)

    def __post_init__(self) -> None:
        if "image" not in self.columns:
            raise ValueError("ingest.manifest.columns lacks image: say which column holds the images' paths or URLs")
        if unknown := sorted(self.columns.keys() - set(MAPPABLE_COLUMNS)):
            raise ValueError(
                f"ingest.manifest.columns: {', '.join(unknown)} unknown; it may map {', '.join(MAPPABLE_COLUMNS)}"
            )
        if self.held_out_by != "product" and self.held_out_by not in self.columns:
            raise ValueError(
                f"ingest.manifest.held_out_by is {self.held_out_by}, which columns does not map: map it, or use product"
            )
        if "seller" in self.columns and self.held_out_by != "seller":
            raise ValueError("ingest.manifest.columns maps seller, which only held_out_by: seller reads: leave it out")


def ingest_manifest(
    spec: ManifestSpec, folder: Path, pins: Path, quarantine: Path, notes: Notes | None = None
) -> Mapping[str, int]:
    """Write the tables `pins` (tables.PINS) and `quarantine` (tables.QUARANTINE) from the list; what stands for splits
    that there cannot be is noted.

    Returns:
        How many rows were quarantined, by kind of reason.

    Raises:
        ValueError: For a list that is missing or unreadable, lacks a mapped column, has no rows, or of which no row
            became a pin.
    """
    rows = 0
    reasons: Counter[str] = Counter()
    splits = SplitAssigner(spec.held_out, spec.held_out_by)
    reader = spec.build_reader(folder)
    frame = _scan_manifest(spec, reader)
    repeated: set[str] | None = None
    if "pin_id" in spec.columns:
        with _explain_errors(spec, reader):
            repeated = _find_repeated_ids(frame)
    with tables.Writer(pins, tables.PINS) as good, tables.Writer(quarantine, tables.QUARANTINE) as bad:
        for batch in _load_batches(frame, spec, reader, repeated):
            accepted, refused = [], []
            for row in batch:
                rows += 1
                try:
                    accepted.append(_build_pin(row, spec, splits))
                except ValueError as error:
                    refused.append({"row": rows, "uri": strip_credentials(row["image"]), "reason": str(error)})
                    reasons[_generalize_reason(str(error))] += 1
            good.add(pa.Table.from_pylist(accepted, schema=tables.PINS))
            bad.add(pa.Table.from_pylist(refused, schema=tables.QUARANTINE))
    if not rows:
        raise ValueError(f"{strip_credentials(spec.path)} has no rows: nothing to ingest")
    if not good.rows:
        top = ", ".join(f"{reason} ({count} rows)" for reason, count in reasons.most_common(3))
        raise ValueError(f"none of the {rows} rows of {strip_credentials(spec.path)} became a pin: {top}")
    splits.settle(pins, notes or Notes())
    return reasons


def _scan_manifest(spec: ManifestSpec, reader: Reader) -> daft.DataFrame:
    """Open the mapped columns under our names, all as text."""
    import daft

    text = daft.DataType.string()
    with _explain_errors(spec, reader):
        frame = _open_list(spec, reader)
    for ours, theirs in spec.columns.items():
        if theirs not in frame.column_names:
            raise ValueError(
                f"{strip_credentials(spec.path)} has no column {theirs!r} (ingest.manifest.columns.{ours}); "
                f"it has {', '.join(frame.column_names)}"
            )
    return frame.select(*(frame[theirs].cast(text).alias(ours) for ours, theirs in spec.columns.items()))


def _open_list(spec: ManifestSpec, reader: Reader) -> daft.DataFrame:
    import daft

    path, config = reader.locate(spec.path), reader.config()
    if spec.format == "jsonl":
        return daft.read_json(path, io_config=config)
    if spec.format == "parquet":
        return daft.read_parquet(path, io_config=config)
    # As text: inferred numbers would lose the zeros of an id such as 007.
    names = daft.read_csv(path, io_config=config).column_names
    return daft.read_csv(path, schema=dict.fromkeys(names, daft.DataType.string()), io_config=config)


@contextmanager
def _explain_errors(spec: ManifestSpec, reader: Reader) -> Iterator[None]:
    """Raise what goes wrong with the list as `ValueError` in one sentence."""
    from daft.exceptions import DaftCoreException

    path = reader.locate(spec.path)
    try:
        yield
    except (DaftCoreException, OSError, ValueError) as error:
        reason = format_error(error, path)
        raise ValueError(f"cannot read {strip_credentials(spec.path)} as {spec.format}: {reason}") from error


def _find_repeated_ids(frame: daft.DataFrame) -> set[str]:
    """Find the pin ids that occur more than once; Daft counts, so that only these come into memory here."""
    import daft

    counts = frame.select("pin_id").groupby("pin_id").agg(daft.col("pin_id").count().alias("rows"))
    return set(counts.where("rows > 1").to_pydict()["pin_id"])


def _load_batches(
    frame: daft.DataFrame, spec: ManifestSpec, reader: Reader, repeated: set[str] | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of rows in the list's order, each with its image or the reason why there is none.

    `repeated`: the ids that occur more than once; None: the images' digests are the ids, and all are remembered.
    """
    import daft

    text, number, binary = daft.DataType.string(), daft.DataType.int32(), daft.DataType.binary()
    columns = daft.DataType.struct({"data": binary, "digest": text, "width": number, "height": number, "reason": text})

    def fetch_images(addresses: daft.Series) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(spec.connections) as pool:
            return list(pool.map(lambda address: _fetch_image(address, spec, reader), addresses.to_pylist()))

    fetch = daft.func.batch(return_dtype=columns, batch_size=BATCH_SIZE)(fetch_images)
    seen: set[str] = set()
    for batch in frame.with_column("fetched", fetch(frame["image"])).to_arrow_iter(results_buffer_size=1):
        for start in range(0, batch.num_rows, BATCH_SIZE):
            rows = batch.slice(start, BATCH_SIZE).to_pylist()
            for row in rows:
                if repeated is None:
                    row["pin_id"] = row["fetched"]["digest"]
                row["repeats"] = row["pin_id"] is not None and row["pin_id"] in seen
                if row["pin_id"] and (repeated is None or row["pin_id"] in repeated):
                    seen.add(row["pin_id"])
            yield rows


def _fetch_image(address: str | None, spec: ManifestSpec, reader: Reader) -> dict[str, Any]:
    """Fetch, check and normalise the image at `address`, or give the reason why there is none."""
    try:
        delivered = reader.read(address, spec.max_bytes)
        data, width, height = normalize_image_bytes(delivered, spec.limits)
        digest = hashlib.blake2b(delivered, digest_size=8).hexdigest()
        return {"data": data, "digest": digest, "width": width, "height": height, "reason": None}
    except ValueError as error:
        return {"data": None, "digest": None, "width": None, "height": None, "reason": str(error)}


def _build_pin(row: Mapping[str, Any], spec: ManifestSpec, splits: SplitAssigner) -> dict[str, Any]:
    """Build the row of tables.PINS; `ValueError` with the reason if there cannot be one."""
    by_digest = "pin_id" not in spec.columns
    if not by_digest and not (row["pin_id"] or "").strip():
        raise ValueError("pin_id is empty")
    if row["repeats"]:
        raise ValueError("the same image occurred before" if by_digest else f"pin_id {row['pin_id']!r} occurred before")
    if row["fetched"]["reason"] is not None:
        raise ValueError(row["fetched"]["reason"])
    product = (row.get("product_id") or "").strip() or None
    if "product_id" not in spec.columns:
        product = row["pin_id"]
    counts = {name: _parse_count(name, row.get(name)) for name in COUNT_COLUMNS}
    _check_counts(counts)
    return {
        "pin_id": row["pin_id"],
        "image": row["fetched"]["data"],
        "width": row["fetched"]["width"],
        "height": row["fetched"]["height"],
        **{name: row.get(name) or "" for name in TEXT_COLUMNS},
        "product_id": product,
        "promoted": _parse_flag(row.get("promoted")),
        **counts,
        "source": spec.name,
        "split": splits.assign(product, row["pin_id"], row),
    }


def _parse_count(name: str, text: str | None) -> int | None:
    """Parse a count; None where the list says nothing."""
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value < 2**63 and value == int(value)):
        raise ValueError(f"{name} is {text!r}: a count is a whole number from 0")
    return int(value)


def _check_counts(counts: Mapping[str, int | None]) -> None:
    """Raise `ValueError` where more people acted than saw; a count that the list lacks is no reason."""
    for name in ("saves", "clicks"):
        acted, saw = counts[name], counts["impressions"]
        if acted is not None and saw is not None and acted > saw:
            raise ValueError(f"{name} are {acted} of {saw} impressions: there cannot be more than those")


def _parse_flag(text: str | None) -> bool:
    """Parse a flag; absent means false."""
    word = (text or "").strip().lower()
    if word not in ("true", "1", "yes", "false", "0", "no", ""):
        raise ValueError(f"promoted is {text!r}: write true or false")
    return word in ("true", "1", "yes")


def _generalize_reason(reason: str) -> str:
    """Return the reason without what differs from row to row."""
    return re.sub(r"\s+", " ", re.sub(r"'[^']*'|\d+", "…", reason.partition(":")[0]))[:60]
