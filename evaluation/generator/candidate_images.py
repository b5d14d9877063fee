"""Candidates, rows of tables.CANDIDATES: the challenger's, the champion's and known-bad ones, and a sheet of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from PIL import Image
from tqdm import tqdm

from canvas.inference.bad_images import degrade_image, paste_product
from canvas.inference.batch import Request, fit_prompt
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_masked_product
from canvas.pins import tables
from canvas.pins.captions import format_caption
from canvas.pins.fallbacks import Notes
from canvas.pins.images import Pixels, decode_image, draw_contact_sheet, encode_png
from canvas.pins.masks import decode_mask, encode_mask
from canvas.pins.products import ProductPin
from canvas.safety.guard import UnsafeContentError
from evaluation.measures.certificates import find_certificate_fault

Row = dict[str, Any]


def build_candidate_requests(
    pipeline: CanvasPipeline,
    pins: Sequence[ProductPin],
    backgrounds: Sequence[str],
    scenes: Sequence[str],
    seeds: int,
) -> tuple[list[Row], list[Request]]:
    """Return for each image to generate the columns that all models' candidates share, and the request.

    An item is a pin and a prompt. Its seeds do not depend on other items, so that a later model gets the same noise.
    """
    items: list[Row] = []
    requests: list[Request] = []
    for pin in pins:
        product = build_masked_product(pin.image, pin.mask)
        for background in backgrounds:
            prompt = fit_prompt(pipeline, pin.product, background)
            whole = format_caption(pin.product, background)  # whatever the challenger's text towers have room for
            item = f"{pin.pin_id}.{crc32(whole.encode()):08x}"
            common = {
                "item_id": item,
                "pin_id": pin.pin_id,
                "category": pin.category or None,
                "prompt": prompt,
                "scene": next((scene for scene in scenes if scene in background), None),
                "mask": encode_mask(pin.mask),
            }
            for number in range(seeds):
                seed = (crc32(item.encode()) + number) % 2**31
                items.append(common | {"seed": seed})
                requests.append(Request(product=product, prompt=prompt, seed=seed))
    return items, requests


def build_candidates(items: Sequence[Row], images: Sequence[Pixels], model: str, digest: str | None) -> list[Row]:
    """Return the rows of one model's images of the items."""
    return [
        _build_candidate(item, encode_png(Image.fromarray(image)), model, digest)
        for item, image in zip(items, images, strict=True)
    ]


def verify_soft_twins(
    pipeline: CanvasPipeline, rows: Sequence[Row], originals: Mapping[str, Image.Image], notes: Notes
) -> list[Row]:
    """Return the challenger's rows, one of each product with `certified`: whether its twin in mode soft has a
    certificate that holds.

    The twin is the same product, prompt and seed in mode soft. It is saved and verified from its files alone. Prompts
    are spread over the products. Why a certificate fails goes to the notes. A model without a light network has no
    mode soft, so that its rows come back as they are.

    Args:
        pipeline: The challenger.
        rows: Of its candidates.
        originals: By pin, RGB.
        notes: Of the stage.
    """
    if pipeline.light is None:
        return list(rows)
    by_pin: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_pin.setdefault(row["pin_id"], []).append(place)
    chosen = {places[number * len(places) // len(by_pin)] for number, places in enumerate(by_pin.values())}
    pipeline.set_progress_bar_config(disable=True)
    verified = list(rows)
    for place in tqdm(sorted(chosen), desc="certificates", unit="image"):
        row = rows[place]
        fault = find_twin_fault(pipeline, originals[row["pin_id"]], row["mask"], row["prompt"], row["seed"])
        if fault is not None:
            notes.add(f"in mode soft {row['candidate_id']} has no certificate that holds: {fault}")
        verified[place] = row | {"certified": fault is None}
    return verified


def find_twin_fault(pipeline: CanvasPipeline, original: Image.Image, mask: bytes, prompt: str, seed: int) -> str | None:
    """Generate a product in mode soft and return why `verify` refuses the files, in a sentence; None: it does not."""
    inside = Image.fromarray(decode_mask(mask))
    try:
        output = pipeline(original, prompt, mask=inside, mode="soft", seed=seed)
    except UnsafeContentError:
        raise
    except ValueError as error:  # the light network gave no numbers
        return str(error)
    return find_certificate_fault(output.images[0], output.certificates[0], [original], [inside])


def read_champion_candidates(evaluation: Path, items: Sequence[Row]) -> list[Row]:
    """Return the champion's rows of the same items and seeds from its evaluation, in which it was the challenger; the
    prompt is its own, for its text towers may have room for more of the product's name, or for less."""
    if not evaluation.is_dir():
        return []
    by_seed = {(item["item_id"], item["seed"]): item for item in items}
    return [
        _build_candidate(item | {"prompt": row["prompt"]}, row["image"], "champion", row["digest"])
        for row in tables.read(evaluation, ["item_id", "seed", "prompt", "model", "digest", "image"]).to_pylist()
        if row["model"] == "challenger" and (item := by_seed.get((row["item_id"], row["seed"]))) is not None
    ]


def build_known_bad_candidates(
    pipeline: CanvasPipeline,
    items: Sequence[Row],
    requests: Sequence[Request],
    images: Sequence[Pixels],
    backdrops: Sequence[Image.Image],
    checks: int,
) -> list[Row]:
    """Return each item's product pasted on a backdrop, and for `checks` of raters the challenger's image degraded."""
    pasted = [
        paste_product(pipeline, request.product, backdrops[item["seed"] % len(backdrops)])
        for item, request in zip(items, requests, strict=True)
    ]
    chosen = range(0, len(items), max(1, len(items) // max(1, checks)))[:checks]
    degraded = [degrade_image(images[index], requests[index].product) for index in chosen]
    return build_candidates(items, pasted, "paste", None) + build_candidates(
        [items[index] for index in chosen], degraded, "spoiled", None
    )


def draw_candidate_sheet(rows: Sequence[Row], originals: Mapping[str, Image.Image], count: int) -> Image.Image:
    """Draw about `count` items in rows: the original, and every model's image of the item's first seed."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_key = {(row["item_id"], row["seed"], row["model"]): row for row in rows}
    images, labels = [], []
    challengers = [row for row in rows if row["model"] == "challenger"]
    for challenger in challengers[:: max(1, len(challengers) // count)]:
        original = originals[challenger["pin_id"]]
        images.append(original)
        labels.append(challenger["prompt"])
        for model in models:
            row = by_key.get((challenger["item_id"], challenger["seed"], model))
            images.append(original if row is None else decode_image(row["image"]))
            labels.append("not painted" if row is None else model)
    return draw_contact_sheet(images, labels, columns=len(models) + 1, cell=150)


def _build_candidate(item: Row, png: bytes, model: str, digest: str | None) -> Row:
    """Return a row whose id names the model by its content, so that judgments of it stay true."""
    name = f"{item['item_id']}.{item['seed']}.{(digest or model)[:12]}"
    return item | {"candidate_id": name, "model": model, "digest": digest, "image": png}
