"""Which pin shows what: kind, split, product, scene and planted defect of every pin, from the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from canvas.pins.tables import HELD_OUT_SPLITS
from canvas.sources.showroom.products import Cutout, Product
from canvas.sources.showroom.spec import DEFECTS, SCENES, Scene, ShowroomSpec

T = TypeVar("T")

SIZES = ((192, 192), (160, 240), (240, 160), (176, 220), (216, 176))
"""Width and height in pixels: 1:1, 2:3, 3:2, 4:5 and about 5:4."""

GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class PinPlan:
    """What one pin shows."""

    index: int
    kind: str  # "in_scene" | "on_white" | "scene"
    split: str
    product: Product | None
    cutout: Cutout | None
    scene: Scene | None
    size: tuple[int, int]  # width, height
    spread: float  # in [0, 1): its place among its like, evenly by the golden ratio
    defect: str | None = None
    copy_of: int | None = None  # index of the pin that a planted near-duplicate repeats

    @property
    def seen_view(self) -> bool:
        return self.split in ("train", "unseen_product")


def plan_pins(spec: ShowroomSpec, seed: int, products: Sequence[Product]) -> list[PinPlan]:
    """Plan all pins in order; a copy always comes after its original and shares its plan."""
    rng = np.random.default_rng([seed, 0])
    kinds_splits = _list_kinds_and_splits(spec)
    order = rng.permutation(len(kinds_splits))
    seen = _cycle_shuffled([product for product in products if not product.held_out], rng)
    unseen = _cycle_shuffled([product for product in products if product.held_out], rng)
    cutouts = {product.product_id: _cycle_shuffled(product.cutouts, rng) for product in products}
    scenes, sizes = _cycle_shuffled(SCENES, rng), _cycle_shuffled(SIZES, rng)
    counters: dict[str, int] = {}
    plans = []
    for index, position in enumerate(order):
        kind, split = kinds_splits[position]
        product = None if kind == "scene" else next(seen if split in ("train", "unseen_view") else unseen)
        scene = None if kind == "on_white" else next(scenes)
        cutout = next(cutouts[product.product_id]) if product else None
        like = f"{kind} {split} {scene.file if scene else cutout.source.file if cutout else ''}"
        counters[like] = counters.get(like, int(rng.integers(1000))) + 1
        spread = counters[like] * GOLDEN % 1
        plans.append(PinPlan(index, kind, split, product, cutout, scene, next(sizes), spread))
    return _plant_defects(plans, spec, rng)


def apportion_total(total: int, weights: Mapping[T, float]) -> dict[T, int]:
    """Divide `total` into whole parts proportional to the weights (largest remainders, ties by order)."""
    whole = sum(weights.values())
    exact = {key: total * weight / whole for key, weight in weights.items()}
    counts = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda key: counts[key] - exact[key])[: total - sum(counts.values())]:
        counts[key] += 1
    return counts


def _list_kinds_and_splits(spec: ShowroomSpec) -> list[tuple[str, str]]:
    train = 1 - spec.unseen_product - spec.unseen_view - spec.unseen_both
    kinds = {"in_scene": 1 - spec.on_white - spec.scene_only, "on_white": spec.on_white, "scene": spec.scene_only}
    splits = {
        "in_scene": {"train": train} | {split: getattr(spec, split) for split in HELD_OUT_SPLITS},
        "on_white": {"train": train + spec.unseen_view, "unseen_product": spec.unseen_product + spec.unseen_both},
        "scene": {"train": train + spec.unseen_product, "unseen_view": spec.unseen_view + spec.unseen_both},
    }
    return [
        (kind, split)
        for kind, count in apportion_total(spec.pins, kinds).items()
        for split, part in apportion_total(count, splits[kind]).items()
        for _ in range(part)
    ]


def _plant_defects(plans: list[PinPlan], spec: ShowroomSpec, rng: np.random.Generator) -> list[PinPlan]:
    each = max(1, round(spec.pins * spec.defective / len(DEFECTS)))
    drawn = [int(index) for index in rng.permutation(spec.pins)]
    for original, copy in (sorted((drawn.pop(), drawn.pop())) for _ in range(each)):
        plans[copy] = replace(plans[original], index=copy, defect="near_duplicate", copy_of=original)
    for defect in (defect for defect in DEFECTS if defect != "near_duplicate" for _ in range(each)):
        index = drawn.pop()
        plans[index] = replace(plans[index], defect=defect)
    return plans


def _cycle_shuffled(items: Sequence[T], rng: np.random.Generator) -> Iterator[T]:
    """Yield the items over and over, every round in a new order."""
    order_rng = np.random.default_rng(rng.integers(2**63))
    while True:
        yield from (items[index] for index in order_rng.permutation(len(items)))
