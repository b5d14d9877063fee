"""Stage `sample_candidates`: the assembled generator in, pictures to be judged and the rating packet out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from canvas.denoiser.spec import Backgrounds, PassSpec
from canvas.pins.tables import SPLITS
from canvas.ranges import Count
from components.artifacts import (
    Candidates,
    CanvasModel,
    Captions,
    Champion,
    Kept,
    Masks,
    Pins,
    RatingKey,
    RatingPacket,
    Truth,
)
from evaluation.ratings.packets import PacketSpec
from lifecycle.declare.stage import Input, Metrics, Output, Sheet, stage
from lifecycle.workspace.digest import digest

if TYPE_CHECKING:
    from PIL import Image

    from canvas.inference.batch import EncodedRequest, Request
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.inference.product import Pixels
    from canvas.pins.products import ProductPin

Row = dict[str, Any]

BACKDROPS = 64
"""Pictures that products are pasted on, at most: all are in memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCandidatesParams:
    splits: tuple[str, ...]  # whose products are shown
    products: Count  # pins
    seeds: Count  # pictures of each product and prompt
    sheet_items: Count
    packet: PacketSpec

    def __post_init__(self) -> None:
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise ValueError(f"sample_candidates needs splits among {', '.join(SPLITS)}, not {self}")


@stage(machine="gpu")
def sample_candidates(
    sample_candidates: SampleCandidatesParams,
    backgrounds: Backgrounds,
    passes: PassSpec,
    canvas: Input[CanvasModel],
    champion: Input[Champion],
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    masks: Input[Masks],
    captions: Input[Captions],
    candidates: Output[Candidates],
    packet: Output[RatingPacket],
    packet_key: Output[RatingKey],
    metrics: Output[Metrics],
    sheet: Output[Sheet],
) -> None:
    """Paint held-out products with the challenger, beside the champion's and known-bad pictures; pack some to rate.

    The sheet shows a few products, what challenger and champion made of them, and known-bad images.
    """
    import pyarrow as pa

    from canvas.device import default_device
    from canvas.inference.batch import encode_requests, generate_images
    from canvas.inference.pipeline import CanvasPipeline
    from canvas.pins import tables
    from canvas.pins.images import encode_png
    from canvas.pins.products import load_product_pins
    from canvas.pins.scene_views import list_scenes
    from evaluation.ratings.packets import write_packet

    params, clock = sample_candidates, time.perf_counter()
    sources = pins.path, kept.path, masks.path, captions.path
    chosen = load_product_pins(*sources, splits=params.splits, count=params.products)
    pipeline = CanvasPipeline.from_pretrained(canvas.path).to(default_device())
    pipeline.merge_lora()
    items, asked = _items(params, backgrounds, chosen, pins.path, list_scenes(truth.path))
    requests = encode_requests(pipeline, asked)
    own = generate_images(
        pipeline,
        requests,
        pipeline.recommended_sampling.build_spec(passes),
        name="candidates",
    )
    bad = _known_bad(params, pipeline, items, requests, own, _backdrops(pins.path, kept.path, chosen))
    rows = _rows(items, own, "challenger", digest(canvas.path)) + _champions(champion.path, items) + bad
    table = pa.Table.from_pylist(rows, schema=tables.CANDIDATES)
    tables.write(candidates.path, [table], tables.CANDIDATES)
    originals = {pin.pin_id: pin.image for pin in chosen}
    shown = write_packet(rows, originals, params.packet, packet.path, packet_key.path)
    figures = {
        "candidates": dict(Counter(row["model"] for row in rows)),
        "packet_items": shown,
        "seconds": time.perf_counter() - clock,
    }
    metrics.write(figures)
    sheet.write(encode_png(_sheet(params, rows, originals)))


def _items(
    params: SampleCandidatesParams,
    backgrounds: Backgrounds,
    chosen: Sequence[ProductPin],
    pins: Path,
    scenes: Sequence[str],
) -> tuple[list[Row], list[Request]]:
    """For every picture to paint: what all candidates of its item and seed have in common, and the request."""
    from canvas.inference.batch import Request
    from canvas.inference.product import build_masked_product
    from canvas.pins import tables
    from canvas.pins.captions import format_caption
    from canvas.pins.masks import encode_mask

    categories = {row["pin_id"]: row["category"] for row in tables.read(pins, ["pin_id", "category"]).to_pylist()}
    items: list[Row] = []
    requests: list[Request] = []
    for pin in chosen:
        product = build_masked_product(pin.image, pin.mask)
        for background in backgrounds.prompts:
            prompt = format_caption(pin.product, background)
            item = f"{pin.pin_id}.{crc32(prompt.encode()):08x}"
            for turn in range(params.seeds):
                # An item's noise does not depend on what else is asked for, so that a later model gets the same.
                seed = (crc32(item.encode()) + turn) % 2**31
                requests.append(Request(product=product, prompt=prompt, seed=seed))
                items.append(
                    {
                        "item_id": item,
                        "pin_id": pin.pin_id,
                        "category": categories[pin.pin_id],
                        "prompt": prompt,
                        "scene": next((scene for scene in scenes if scene in background), None),
                        "seed": seed,
                        "mask": encode_mask(pin.mask),
                    }
                )
    return items, requests


def _champions(champion: Path, items: Sequence[Row]) -> list[Row]:
    """The pinned champion's pictures of the same items and seeds; it was the challenger when it painted them."""
    from canvas.pins import tables

    if not (place := champion / "evaluation").is_dir():
        return []
    wanted = {(item["item_id"], item["seed"]): item for item in items}
    return [
        _row(wanted[row["item_id"], row["seed"]], row["image"], "champion", row["digest"])
        for row in tables.read(place, ["item_id", "seed", "model", "digest", "image"]).to_pylist()
        if row["model"] == "challenger" and (row["item_id"], row["seed"]) in wanted
    ]


def _known_bad(
    params: SampleCandidatesParams,
    pipeline: CanvasPipeline,
    items: Sequence[Row],
    requests: Sequence[EncodedRequest],
    own: Sequence[Pixels],
    backdrops: Sequence[Image.Image],
) -> list[Row]:
    """Of every item its product on another pin's picture; of some, for attention checks, the challenger's spoiled."""
    from canvas.inference.known_bad import degrade_image, paste_product

    products = [one.request.product for one in requests]
    on_others = [
        paste_product(pipeline, product, backdrops[item["seed"] % len(backdrops)])
        for item, product in zip(items, products, strict=True)
    ]
    checks = range(0, len(items), max(1, len(items) // max(1, params.packet.checks)))[: params.packet.checks]
    worse = [degrade_image(own[place], products[place]) for place in checks]
    return _rows(items, on_others, "paste", None) + _rows([items[place] for place in checks], worse, "spoiled", None)


def _backdrops(pins: Path, kept: Path, chosen: Sequence[ProductPin]) -> list[Image.Image]:
    """Pictures of kept pins to put products on: views without a product where there are any."""
    from canvas.pins import tables
    from canvas.pins.images import composite_on_white, decode_image

    split_of = tables.read_kept_splits(pins, kept)
    shown = {pin.pin_id for pin in chosen}
    others = [
        row
        for row in tables.read(pins, ["pin_id", "product_id"]).to_pylist()
        if row["pin_id"] in split_of.keys() - shown
    ]
    views = [row["pin_id"] for row in others if row["product_id"] is None] or [row["pin_id"] for row in others]
    if not views:
        raise ValueError("every kept pin is a product to be shown: sample_candidates.products must leave some")
    taken = set(sorted(views)[:BACKDROPS])
    return [
        composite_on_white(decode_image(row["image"]))
        for batch in tables.read_batches(pins, ["pin_id", "image"])
        for row in batch.to_pylist()
        if row["pin_id"] in taken
    ]


def _rows(items: Sequence[Row], pictures: Sequence[Pixels], model: str, made_by: str | None) -> list[Row]:
    from PIL import Image

    from canvas.pins.images import encode_png

    return [
        _row(item, encode_png(Image.fromarray(picture)), model, made_by)
        for item, picture in zip(items, pictures, strict=True)
    ]


def _row(item: Row, png: bytes, model: str, made_by: str | None) -> Row:
    """A row of the table. The candidate's id names the model by its content, so that judgments of it stay true."""
    name = f"{item['item_id']}.{item['seed']}.{(made_by or model)[:12]}"
    return item | {"candidate_id": name, "model": model, "digest": made_by, "image": png}


def _sheet(params: SampleCandidatesParams, rows: Sequence[Row], originals: Mapping[str, Image.Image]) -> Image.Image:
    """Items in rows: the product as it came, and every model's picture of the item's first seed."""
    from canvas.pins.images import decode_image, draw_contact_sheet

    models = list(dict.fromkeys(row["model"] for row in rows))
    by_model = {model: [row for row in rows if row["model"] == model] for model in models}
    count = len(by_model["challenger"])
    pictures, labels = [], []
    for place in range(0, count, max(1, count // params.sheet_items)):
        own = by_model["challenger"][place]
        pictures.append(originals[own["pin_id"]])
        labels.append(own["prompt"])
        for model in models:
            same = (row for row in by_model[model] if (row["item_id"], row["seed"]) == (own["item_id"], own["seed"]))
            row = next(same, None)
            pictures.append(originals[own["pin_id"]] if row is None else decode_image(row["image"]))
            labels.append("not painted" if row is None else model)
    return draw_contact_sheet(pictures, labels, columns=len(models) + 1, cell=150)
