"""The tables of the lifecycle: their columns, and how they are read and written.

A table is a directory of Parquet parts with fixed names, so that the same rows give the same bytes.
Every sidecar is keyed by `pin_id` and holds one row a pin unless its comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import daft

ROWS_PER_PART = 2_000
ROWS_PER_GROUP = 250
"""Rows that a writer holds, and that a reader must hold at least: 250 images of a megabyte are 250 MB."""

SPLITS = ("train", "unseen_product", "unseen_view", "unseen_both")
"""Training reads `train` only; the others hold out products, camera sectors of scenes, and both."""
HELD_OUT_SPLITS = SPLITS[1:]


def select_fields(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """Return the fields `names` of `schema`."""
    return pa.schema([schema.field(name) for name in names])


PINS = pa.schema(
    [
        ("pin_id", pa.string()),
        ("image", pa.binary()),  # encoded as delivered: JPEG, PNG or WebP
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("alt_text", pa.string()),
        ("board", pa.string()),
        ("product_id", pa.string()),  # null: no product in the image
        ("category", pa.string()),
        ("promoted", pa.bool_()),
        ("impressions", pa.int64()),
        ("saves", pa.int64()),
        ("clicks", pa.int64()),
        ("source", pa.string()),  # "showroom", or the manifest's name
        ("split", pa.string()),  # one of SPLITS
    ]
)

TRUTH = pa.schema(
    [
        ("pin_id", pa.string()),
        ("kind", pa.string()),  # "in_scene" | "on_white" | "scene"
        ("scene", pa.string()),  # words, as in "desert at dawn"; null on white
        ("yaw", pa.float32()),  # degrees, 0..360
        ("pitch", pa.float32()),  # degrees, up is positive
        ("fov", pa.float32()),  # horizontal, degrees
        ("box", pa.list_(pa.int32())),  # x0, y0, x1, y1 of the pasted product in pixels; null: none
        ("alpha", pa.binary()),  # PNG, 8-bit, the image's size: product opacity without its shadow; null: none
        ("background", pa.binary()),  # the image before the product came in, encoded as the image; null: none
        # What the scene's light did to the product: canvas.light.gain's grid over `box`, 8 x 8 nodes of 3 channels.
        ("log_gain", pa.list_(pa.float32())),  # null: no scene, or a defect that changed pixels
        ("shadow", pa.binary()),  # PNG, 8-bit: opacity of the product's shadow on the background; null: likewise
        ("defect", pa.string()),  # planted: see canvas.sources.showroom; null: a good pin
        ("copy_of", pa.string()),  # pin_id that a planted near-duplicate was made from; null: original
    ]
)

QUARANTINE = pa.schema([("row", pa.int64()), ("uri", pa.string()), ("reason", pa.string())])

KEPT = pa.schema(
    [
        ("pin_id", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # the first filter against it; null: kept
        ("short_side", pa.int32()),
        ("aspect", pa.float32()),  # long side / short side
        ("sharpness", pa.float32()),  # 0..1
        ("brightness", pa.float32()),  # mean luma, 0..1
        ("clipped", pa.float32()),  # fraction of the pixels below paper white with a burnt channel
        ("entropy", pa.float32()),  # bits
        ("phash", pa.string()),  # perceptual hash: 288 bits in hex
        ("text_length", pa.int32()),
        ("nsfw", pa.float32()),  # probability; null: dropped before it was asked
        ("text_overlay", pa.float32()),  # width of the widest line of text, fraction of the image's; null: likewise
        ("overlay_text", pa.string()),  # what it says; null: none
        ("duplicate_of", pa.string()),  # pin_id that was kept in its stead
        ("similarity", pa.float32()),  # cosine of image features to the nearest earlier pin; null: none has a near hash
        ("relevance", pa.float32()),  # agreement of the pin's texts, cosine; null: likewise, or too few texts
    ]
)

MASKS = pa.schema(
    [
        ("pin_id", pa.string()),
        ("mask", pa.binary()),  # PNG, 1-bit, the image's size
        ("alpha", pa.binary()),  # PNG, 8-bit, the image's size
        ("confidence", pa.float32()),  # 0..1
        ("box", pa.list_(pa.int32())),  # x0, y0, x1, y1; null: empty mask
        ("rejected", pa.string()),  # reason; null: good for training
    ]
)

CAPTIONS = pa.schema(
    [("pin_id", pa.string()), ("source", pa.string()), ("caption", pa.string())]
)  # several rows a pin; source: "title" | "description" | "alt" | "generated"

EMBEDDINGS = pa.schema(
    [
        ("pin_id", pa.string()),
        ("uve", pa.list_(pa.float32())),  # unit length
        ("uve_code", pa.binary()),  # the signs of uve, eight to a byte (numpy.packbits): 1 is above zero
        ("clip", pa.list_(pa.float32())),  # of the second tower, unit length
    ]
)

STYLES = pa.schema(
    [
        ("style_id", pa.string()),  # "cluster-007" | "board-0012"
        ("kind", pa.string()),  # one of STYLE_KINDS
        ("name", pa.string()),  # of a board its title, of a cluster words of its captions; no two alike in a kind
        ("uve", pa.list_(pa.float32())),  # mean of the members', brought to unit length
        ("clip", pa.list_(pa.float32())),  # likewise
        ("pins", pa.list_(pa.string())),  # members, the most typical first
        ("purity", pa.float32()),  # share of the members that the words of most speak of, 0..1; null: no captions
        ("coherence", pa.float32()),  # mean cosine between members' descriptors, -1..1; null: fewer than two
        ("chance", pa.float32()),  # that so many pins drawn at random cohere as much; null: a cluster
        ("dropped", pa.string()),  # reason; null: a style to use
    ]
)
STYLE_KINDS = ("cluster", "board")

CANDIDATES = pa.schema(
    [
        ("candidate_id", pa.string()),
        ("item_id", pa.string()),  # product pin and prompt: what candidates compete at
        ("pin_id", pa.string()),
        ("category", pa.string()),  # of the product; null: unknown
        ("prompt", pa.string()),  # background
        ("scene", pa.string()),  # that the prompt names; null: none that truth knows
        ("seed", pa.int64()),
        ("model", pa.string()),  # one of CANDIDATE_MODELS
        ("digest", pa.string()),  # of the model; null: no model made it
        ("image", pa.binary()),  # PNG, the product image's size; a champion's may be smaller
        ("mask", pa.binary()),  # PNG, 1-bit, the product image's size
        ("certified", pa.bool_()),  # of its twin in mode soft: whether `verify` passes it; null: it has no twin
    ]
)
CANDIDATE_MODELS = ("challenger", "champion", "paste", "spoiled")
"""paste: the product on another image, the least that a model must beat; spoiled: for checks of raters only."""

EVALUATION = pa.schema(
    [
        *(field for field in CANDIDATES if field.name != "mask"),  # the image whole: a champion's is scored again
        ("mask_size", pa.string()),  # of the product in the image, one of MASK_SIZES
        ("aspect", pa.string()),  # of the image, one of ASPECTS
        ("core_max_abs_diff", pa.float32()),  # largest change of a byte on the product's core, 0..255
        ("certificates_failed", pa.float32()),  # 1: its twin in mode soft is not certified, 0: it is; null: it has none
        ("extension", pa.float32()),  # what the product gained, in parts of its area
        ("erosion", pa.float32()),  # what it lost
        ("seam_ratio", pa.float32()),  # gradient round the product's edge over the original's; null: it has no edge
        ("scene_right", pa.float32()),  # 1: the judge sees the prompt's scene, 0: another; null: it knows none of it
        ("scene_right_sharp", pa.float32()),  # likewise, by the judge that asks for sharp texture
        ("agreement", pa.float32()),  # of image and prompt: cosine, -1..1
        ("diversity", pa.float32()),  # mean distance to the other images of its item and model; null: it is alone
        ("defective", pa.float32()),  # 1: the frozen judge sees a defect, 0: it sees none
        ("reward_defects", pa.float32()),  # probability that people see none
        ("reward_fidelity", pa.float32()),
        ("reward_aesthetics", pa.float32()),
        ("reward_overall", pa.float32()),
    ]
)  # one row a candidate; numbers beyond those of CANDIDATES are measures
MASK_SIZES = ("small", "medium", "large")
ASPECTS = ("wide", "square", "tall")

TRAINING_STATISTICS = select_fields(KEPT, ["pin_id", "sharpness", "brightness", "clipped", "entropy"])

JUDGMENTS = pa.schema(
    [
        ("judgment_id", pa.string()),
        ("item_id", pa.string()),  # what was shown, repeats of it included; synthetic: made up for the pair
        ("rater", pa.string()),  # the name that the rater signed in with; synthetic: "synthetic"
        ("kind", pa.string()),  # one of JUDGMENT_KINDS
        ("question", pa.string()),  # one of QUESTIONS
        ("value", pa.float32()),  # pairwise: 1 `first` is better, 0 `second` is, 0.5 a tie; absolute: 0 worst .. 1 best
        ("first", pa.string()),  # candidate_id; synthetic: pin_id, or pin_id and cause
        ("second", pa.string()),  # likewise; null: absolute
        ("first_model", pa.string()),  # digest of the model that made it; null: none did (real, pasted, corrupted)
        ("second_model", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),  # when it was given; null: synthetic
        ("source", pa.string()),  # "human" | "synthetic"; only human judgments count for a gate
        ("cause", pa.string()),  # what was done to the worse image; null: human
        ("attention", pa.bool_()),  # a check of the rater: one of the two images is known to be bad
        ("set_aside", pa.string()),  # why it does not count; null: it does
    ]
)
JUDGMENT_KINDS = ("pairwise", "absolute")
QUESTIONS = ("defects", "fidelity", "aesthetics", "preference")

PREFERENCES = pa.schema(
    [
        ("first", pa.string()),  # candidate_id
        ("second", pa.string()),  # likewise, after `first` in the alphabet; null: `first` was shown alone
        ("pin_id", pa.string()),
        ("product_id", pa.string()),  # null: unknown
        ("prompt", pa.string()),
        *((question, pa.float32()) for question in QUESTIONS),  # mean of what was said of `first`; null: not asked
        ("judgments", pa.int32()),
        ("product", pa.binary()),  # PNG, reduced, as are the others
        ("mask", pa.binary()),  # PNG, 1-bit, of the product
        ("first_image", pa.binary()),
        ("second_image", pa.binary()),  # null: alone
    ]
)  # one row a pair that people compared, or an image that they judged alone


class Writer:
    """Writes `part-00000.parquet`, ... of ROWS_PER_PART rows each into a new directory; use as a context.

    Holds at most one row group in memory; the bytes do not depend on how the rows come in. No rows still make
    a table (one empty part).
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        self._pending, self._groups = schema.empty_table(), 0
        self._part: pq.ParquetWriter | None = None
        path.mkdir(parents=True)

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows; columns beyond the schema are left out, types are cast to it."""
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        self._pending = pa.concat_tables([self._pending, table.select(self.schema.names).cast(self.schema)])
        self.rows += table.num_rows
        while self._pending.num_rows >= ROWS_PER_GROUP:
            self._write_group(self._pending.slice(0, ROWS_PER_GROUP))
            self._pending = self._pending.slice(ROWS_PER_GROUP)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None and (self._pending.num_rows or not self._groups):
            self._write_group(self._pending)
        if self._part is not None:
            self._part.close()

    def _write_group(self, group: pa.Table) -> None:
        part, place = divmod(self._groups, ROWS_PER_PART // ROWS_PER_GROUP)
        if place == 0:
            if self._part is not None:
                self._part.close()
            self._part = pq.ParquetWriter(self.path / f"part-{part:05d}.parquet", self.schema, compression="zstd")
        assert self._part is not None
        self._part.write_table(group)
        self._groups += 1


def write(path: Path, rows: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema) -> int:
    """Write `rows` as a table with a `Writer`; return the number of rows."""
    with Writer(path, schema) as writer:
        for batch in rows:
            writer.add(batch)
    return writer.rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write dictionaries as a table; return their number. No rows make a table of always the same bytes."""
    return write(path, [pa.Table.from_pylist(list(rows), schema)], schema)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the whole table: for sidecars and tests; pixels are streamed with `read_batches` or `scan`."""
    return pq.read_table(path, columns=None if columns is None else list(columns))


def read_batches(path: Path, columns: Sequence[str] | None = None, rows: int = 64) -> Iterator[pa.RecordBatch]:
    """Yield the table in order, `rows` rows at a time; memory stays flat."""
    for part in sorted(path.glob("*.parquet")):
        yield from pq.ParquetFile(part).iter_batches(rows, columns=None if columns is None else list(columns))


def select_batches(
    path: Path, columns: Sequence[str], pin_ids: Container[str], rows: int = 64
) -> Iterator[list[dict[str, Any]]]:
    """Yield, of every `rows` rows of the table, those of `pin_ids` with `pin_id` and `columns`; none: no batch. One
    pass in the order of the table; memory stays flat."""
    for batch in read_batches(path, ["pin_id", *columns], rows):
        places = [place for place, pin in enumerate(batch["pin_id"].to_pylist()) if pin in pin_ids]
        if places:
            yield batch.take(pa.array(places)).to_pylist()


def iterate_rows(path: Path, columns: Sequence[str], pin_ids: Container[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `pin_ids` with `pin_id` and `columns`, one at a time, in the order of the table."""
    for rows in select_batches(path, columns, pin_ids):
        yield from rows


def read_column(path: Path, column: str, pin_ids: Container[str]) -> dict[str, Any]:
    """Return pin_id -> value of `column`, of those of `pin_ids` that the table holds, in its order."""
    return {row["pin_id"]: row[column] for row in iterate_rows(path, [column], pin_ids)}


class RowsById:
    """Rows of a table by their unique pin_id: reads only row groups that hold them, and keeps the last `remembered`."""

    def __init__(self, path: Path, remembered: int = 0) -> None:
        self._groups: list[tuple[Path, int]] = []
        self._group_of: dict[str, int] = {}
        for part in sorted(path.glob("*.parquet")):
            with pq.ParquetFile(part) as file:
                for number in range(file.num_row_groups):
                    ids = file.read_row_group(number, ["pin_id"])["pin_id"].to_pylist()
                    self._group_of.update(dict.fromkeys(ids, len(self._groups)))
                    self._groups.append((part, number))
        self._group = lru_cache(maxsize=remembered)(self._read_group)

    def __contains__(self, pin_id: str) -> bool:
        return pin_id in self._group_of

    def __iter__(self) -> Iterator[str]:
        """The pins, in the order of the table."""
        return iter(self._group_of)

    def read(self, ids: Collection[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Read the rows of `ids` in the order of the table, with `columns`, pin_id among them; no row: left out."""
        values, rows = pa.array(set(ids), pa.string()), []
        for place in sorted({self._group_of[pin_id] for pin_id in ids if pin_id in self._group_of}):
            group = self._group(place, tuple(columns))
            rows += group.filter(pc.is_in(group["pin_id"], values)).to_pylist()
        return rows

    def _read_group(self, place: int, columns: tuple[str, ...]) -> pa.Table:
        part, number = self._groups[place]
        with pq.ParquetFile(part) as file:
            return file.read_row_group(number, list(columns))


def read_kept_splits(pins: Path, kept: Path) -> dict[str, str]:
    """Read pin_id -> split of the pins that the filter kept, in the order of the pins table."""
    good = {row["pin_id"] for row in read(kept, ["pin_id", "kept"]).to_pylist() if row["kept"]}
    rows = read(pins, ["pin_id", "split"]).to_pylist()
    return {row["pin_id"]: row["split"] for row in rows if row["pin_id"] in good}


def read_train_and_held_out(pins: Path, kept: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the splits of the kept pins, by id: of those that training reads, and of the others."""
    split_of = read_kept_splits(pins, kept)
    train = {pin_id: split for pin_id, split in split_of.items() if split == "train"}
    return train, {pin_id: split for pin_id, split in split_of.items() if split != "train"}


def escape_pattern(path: str) -> str:
    """Return the pattern that Daft takes for this very path."""
    return "".join(f"[{letter}]" if letter in "*?[]{}" else letter for letter in path)


def scan(path: Path) -> daft.DataFrame:
    """Open the table as a lazy Daft frame, on whichever runner `start_engine` chose."""
    import daft

    return daft.read_parquet([escape_pattern(str(part)) for part in sorted(path.glob("*.parquet"))])


def scan_kept(pins: Path, kept: Path, columns: Sequence[str]) -> daft.DataFrame:
    """Open `columns` of the pins that the filter kept, as a lazy Daft frame."""
    good = scan(kept).where("kept").select("pin_id")
    return scan(pins).select(*columns).join(good, on="pin_id", how="semi")


def stream_batches(frame: daft.DataFrame, total: int, desc: str) -> Iterator[pa.RecordBatch]:
    """Evaluate a frame of `total` pins under a progress bar; memory stays flat."""
    from tqdm import tqdm

    with tqdm(total=total, desc=desc, unit="pin") as bar:
        for batch in frame.to_arrow_iter(results_buffer_size=1):
            yield batch
            bar.update(batch.num_rows)
