"""Pins from a list of images that somebody else keeps: a Parquet, CSV or JSONL file, local or remote.

Rows are read one by one, and a few images are in memory at a time, whatever the length of the list. A row that cannot
become a pin goes to the quarantine table with its reason; the next one is read.
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.images import ImageLimits, NormalizedImage, normalize_image
from canvas.ranges import Connections, Count, FileBytes, Half, Seconds
from canvas.sources.addresses import Reader, strip_credentials
from canvas.sources.cells import MAX_QUOTED, check_counts, parse_count, parse_flag
from canvas.sources.downloads import DownloadRules, is_host_name
from canvas.sources.lists import SUFFIXES, Format, fingerprint_list, open_list, read_partition
from canvas.sources.parquet_rows import read_parquet_rows
from canvas.sources.splits import HeldOutUnit, SplitAssigner
from canvas.sources.text_rows import JsonKeys, read_csv_rows, read_json_rows
from canvas.sources.values import Row, trim

TEXT_COLUMNS = ("title", "description", "alt_text", "board", "category")
COUNT_COLUMNS = ("impressions", "saves", "clicks")
MAPPABLE_COLUMNS = ("pin_id", "image", *TEXT_COLUMNS, "product_id", "seller", "promoted", *COUNT_COLUMNS)
TRIMMED_COLUMNS = frozenset({"pin_id", "image", "product_id", "seller", "board", "category"})
"""Names: spaces round them mean nothing. Other texts stay as they are."""
BATCH_SIZE = 32
"""Images in memory at a time."""
MAX_URI = 1000  # characters of an address in the quarantine


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestSpec:
    """Where the list is and how to read it."""

    path: str
    """Path or URL (file, http, https, s3, gs); a relative one starts at the data directory, as do relative
    image paths in the list; those that are not there start at the list's folder. Credentials for s3 and gs come from
    the environment."""
    format: Format  # of the list, or of the parts in its folder, which are read in the order of their names
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
    max_bytes: FileBytes  # of an image's file; larger ones are quarantined
    max_pixels: Count  # of an image, width * height; larger ones are quarantined
    connections: Connections  # downloads at a time, and images in memory
    timeout_seconds: Seconds
    """For a connection, and between two parts of an answer; a failed download is tried three times."""
    download_seconds: Seconds  # for a whole image, tries and redirects among it; for each 64 KiB of a list
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
        reader = Reader(folder=folder, roots=self.roots, rules=rules)
        try:
            place = reader.locate(self.path)
        except ValueError:  # who opens the list says so
            return reader
        if "://" in place:
            return reader
        is_folder = os.path.isdir(place)  # noqa: PTH112  # False for any bad name
        return replace(reader, beside=Path(place) if is_folder else Path(place).parent)

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ValueError("ingest.manifest.path is empty: name the list, or the folder of its parts")
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
        for host in self.hosts or ():
            if not is_host_name(host):
                raise ValueError(f"ingest.manifest.hosts has {host!r}: write the host alone, as shop.com or *.shop.com")
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip()):
            raise ValueError(f"ingest.manifest.user_agent is {self.user_agent!r}: write a line of ASCII letters")
        if "seller" in self.columns and self.held_out_by != "seller":
            raise ValueError("ingest.manifest.columns maps seller, which only held_out_by: seller reads: leave it out")


@dataclass(slots=True)
class _Counts:
    """What happened to the rows."""

    rows: int = 0
    trimmed: Counter[str] = field(default_factory=Counter)  # column -> rows with spaces round it
    outside: int = 0  # pins whose image lies elsewhere than in the data directory
    image_notes: Counter[str] = field(default_factory=Counter)  # of pins, by kind
    reasons: Counter[str] = field(default_factory=Counter)  # of quarantined rows, by kind
    first_reason: str = ""  # of the first quarantined row, as it stands


def ingest_manifest(spec: ManifestSpec, folder: Path, pins: Path, quarantine: Path, notes: Notes) -> Mapping[str, int]:
    """Write the tables `pins` (tables.PINS) and `quarantine` (tables.QUARANTINE) from the list.

    Args:
        notes: Takes what the list was read as where it is not what params say, and what stands for splits that there
            cannot be.

    Returns:
        How many rows were quarantined, by kind of reason.

    Raises:
        ValueError: For a list that is missing or unreadable, lacks a mapped column, has no rows, or of which no row
            became a pin.
    """
    counts = _Counts()
    splits = SplitAssigner(spec.held_out, spec.held_out_by)
    reader = spec.build_reader(folder)
    public_path = strip_credentials(spec.path)
    with (
        open_list(spec.path, spec.format, reader) as files,
        tables.Writer(pins, tables.PINS) as good,
        tables.Writer(quarantine, tables.QUARANTINE) as bad,
    ):
        rows = _check_rows(_read_rows(spec, files, notes), _find_repeats(spec, files, notes), counts)
        for batch in _batch(_fetch_images(rows, spec, reader, splits, counts), BATCH_SIZE):
            good.add(pa.Table.from_pylist([row for row in batch if "pin_id" in row], schema=tables.PINS))
            bad.add(pa.Table.from_pylist([row for row in batch if "reason" in row], schema=tables.QUARANTINE))
    if not counts.rows:
        raise ValueError(f"{public_path} has no rows: nothing to ingest")
    if not good.rows:
        top = ", ".join(f"{reason} ({count} rows)" for reason, count in counts.reasons.most_common(3))
        raise ValueError(f"none of the {counts.rows} rows of {public_path} became a pin: {top}; {counts.first_reason}")
    splits.settle(pins, notes)
    for column, count in counts.trimmed.items():
        notes.add(f"spaces round {column} were left out in {count} rows")
    for note, count in counts.image_notes.items():
        notes.add(f"{count} images: {note}")
    if counts.outside:
        notes.add(
            f"{counts.outside} images lie outside the data directory: whether they change is not seen, "
            "`dvc repro --force ingest` reads them again"
        )
    return counts.reasons


def fingerprint_manifest(spec: ManifestSpec, folder: Path) -> dict[str, str]:
    """Return the list's address and what tells its content from another; {} for a list in the data directory `folder`.

    The images that the list names are not asked for. Raises `ValueError` for a list that cannot be had.
    """
    reader = spec.build_reader(folder)
    fingerprint = fingerprint_list(spec.path, spec.format, reader)
    return {} if fingerprint is None else {strip_credentials(spec.path) or "": fingerprint}


def _read_rows(
    spec: ManifestSpec, files: Sequence[Path], notes: Notes, needed: Collection[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of the list with the columns `needed`, all if not said; CSV and JSONL have them all anyway."""
    public_path = strip_credentials(spec.path) or ""
    keys = JsonKeys(spec.columns)
    for file in files:
        is_part = _is_part(spec, file)
        name = file.name if is_part else public_path
        columns, partition = _split_partition(spec.columns, file)
        if len(files) > 1 and not file.stat().st_size:
            notes.add(f"part {file.name} of {public_path} is empty")
            continue
        if spec.format == "parquet":
            wanted = [ours for ours in columns if needed is None or ours in needed]
            rows = read_parquet_rows(file, name, columns, wanted, notes)
        elif spec.format == "csv":
            rows = read_csv_rows(file, name, columns, notes)
        else:
            keys.add({spec.columns[ours]: value for ours, value in partition.items()})
            rows = read_json_rows(file, name, columns, notes, keys)
        for row in rows:
            row.values = {**row.values, **partition}
            yield row
    keys.check(public_path)


def _split_partition(columns: dict[str, str], file: Path) -> tuple[dict[str, str], dict[str, str | None]]:
    """Return the columns that the rows of a part have, and the values of those that the names of its folders say."""
    folders = read_partition(file)
    values = {ours: folders[theirs] for ours, theirs in columns.items() if theirs in folders}
    return {ours: theirs for ours, theirs in columns.items() if ours not in values}, values


def _is_part(spec: ManifestSpec, file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES[spec.format] and file.name != Path(spec.path).name


def _find_repeats(spec: ManifestSpec, files: Sequence[Path], notes: Notes) -> set[bytes] | None:
    """Read the list once without images, so that it is known to be readable; return the digests of the pin ids that
    may occur more than once. None: the images' digests are the ids."""
    by_digest = "pin_id" not in spec.columns
    digests = array("Q")  # 8 bytes a row
    for row in _read_rows(spec, files, notes, [] if by_digest else ["pin_id"]):
        if pin_id := trim(row.values.get("pin_id") or ""):
            digests.frombytes(_digest_id(pin_id))
    if by_digest:
        return None
    values, numbers = np.unique(np.frombuffer(digests, np.uint64), return_counts=True)
    return {value.tobytes() for value in values[numbers > 1]}


def _digest_id(pin_id: str) -> bytes:
    return hashlib.blake2b(pin_id.encode(), digest_size=8).digest()


def _check_rows(rows: Iterable[Row], repeats: set[bytes] | None, counts: _Counts) -> Iterator[Row]:
    """Yield the rows, spaces round ids and addresses left out; one whose id occurred before has that as its fault."""
    seen: set[str] = set()
    for row in rows:
        counts.rows += 1
        values = dict(row.values)
        for column in TRIMMED_COLUMNS & values.keys():
            text = values[column]
            if text is not None and text != (trimmed := trim(text)):
                counts.trimmed[column] += 1
                values[column] = trimmed or None
        row.values = values
        if repeats is not None and not row.fault:
            pin_id = values.get("pin_id")
            if not pin_id:
                row.fault = "pin_id is empty"
            elif pin_id in seen:
                row.fault = f"pin_id {pin_id[:MAX_QUOTED]!r} occurred before"
            elif _digest_id(pin_id) in repeats:
                seen.add(pin_id)
        yield row


def _fetch_images(
    rows: Iterable[Row], spec: ManifestSpec, reader: Reader, splits: SplitAssigner, counts: _Counts
) -> Iterator[dict[str, Any]]:
    """Yield a row of tables.PINS for each row that becomes a pin, and one of tables.QUARANTINE for each that does not,
    in the list's order. A few images are in memory at a time."""
    seen: set[str] = set()
    waiting: deque[tuple[int, Row, Future[_Fetched]]] = deque()

    def finish() -> dict[str, Any]:
        number, row, future = waiting.popleft()
        try:
            fetched = future.result()
            if "pin_id" not in spec.columns:
                if fetched.digest in seen:
                    raise ValueError("the same image occurred before")
                seen.add(fetched.digest)
            pin = _build_pin(row, fetched, spec, splits)
            address = row.values.get("image")
            counts.outside += row.image is None and address is not None and reader.is_outside(address)
            counts.image_notes.update(map(_generalize, fetched.image.notes))
            return pin
        except ValueError as error:
            counts.reasons[_generalize_reason(str(error))] += 1
            counts.first_reason = counts.first_reason or f"of row {number}: {error}"
            uri = strip_credentials(row.values.get("image"))
            return {"row": number, "uri": uri and uri[:MAX_URI], "reason": str(error)}

    with ThreadPoolExecutor(spec.connections) as pool:
        try:
            for number, row in enumerate(rows, start=1):
                waiting.append((number, row, pool.submit(_fetch_image, row, spec, reader)))
                if len(waiting) >= max(BATCH_SIZE, spec.connections):
                    yield finish()
            while waiting:
                yield finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batch(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, size)):
        yield batch


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An image as the table holds it, and the digest of what was delivered."""

    image: NormalizedImage
    digest: str


def _fetch_image(row: Row, spec: ManifestSpec, reader: Reader) -> _Fetched:
    """Fetch, check and normalise the row's image; `ValueError` with the reason why there is no pin, in one sentence."""
    if row.fault:
        raise ValueError(row.fault)
    _check_cells(row)
    delivered = reader.read(row.values.get("image"), spec.max_bytes) if row.image is None else row.image
    try:
        image = normalize_image(delivered, spec.limits)
    except ValueError:
        raise
    except Exception as error:  # whatever a codec raises is about this row alone
        raise ValueError(f"the image cannot be used: {' '.join(str(error).split()) or type(error).__name__}") from error
    return _Fetched(image, hashlib.blake2b(delivered, digest_size=8).hexdigest())


def _check_cells(row: Row) -> None:
    """Raise `ValueError` for a cell that cannot be read, before the image is fetched."""
    parse_flag(row.values.get("promoted"))
    check_counts({name: parse_count(name, row.values.get(name)) for name in COUNT_COLUMNS})


def _build_pin(row: Row, fetched: _Fetched, spec: ManifestSpec, splits: SplitAssigner) -> dict[str, Any]:
    """Build the row of tables.PINS."""
    values = row.values
    pin_id = values.get("pin_id") or fetched.digest
    product = values.get("product_id") or None if "product_id" in spec.columns else pin_id
    return {
        "pin_id": pin_id,
        "image": fetched.image.data,
        "width": fetched.image.width,
        "height": fetched.image.height,
        **{name: values.get(name) or "" for name in TEXT_COLUMNS},
        "product_id": product,
        "promoted": parse_flag(values.get("promoted")),
        **{name: parse_count(name, values.get(name)) for name in COUNT_COLUMNS},
        "source": spec.name,
        "split": splits.assign(product, pin_id, values),
    }


def _generalize_reason(reason: str) -> str:
    """Return the reason without what differs from row to row."""
    return re.sub(r"\s+", " ", _generalize(re.sub(r"^line \d+: ", "", reason).partition(":")[0]))[:60]


def _generalize(sentence: str) -> str:
    return re.sub(r"'[^']*'|\d+", "…", sentence)
