"""Pins that an evaluation needs: real ones to compare with, others to learn defects from, and the engaged ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import read_images
from canvas.pins.products import ProductPin, load_product_pins
from canvas.shards.spec import EngagementRule
from evaluation.generator.spec import EvaluationSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPins:
    """Pins of the catalogue; none was generated."""

    real: list[ProductPin]  # held out
    train: list[ProductPin]
    engaged: list[Image.Image]  # of any split; empty: nothing is known of engagement


def load_evaluation_pins(
    spec: EvaluationSpec, notes: Notes, pins: Path, kept: Path, masks: Path, captions: Path
) -> EvaluationPins:
    """Load the pins of an evaluation; where none is held out, others stand for them, which is noted."""
    sources = pins, kept, masks, captions
    engaged = select_evenly(select_engaged_pins(pins, kept, spec.engaged), spec.real_pins)
    return EvaluationPins(
        real=load_product_pins(*sources, splits=tables.HELD_OUT_SPLITS, count=spec.real_pins, notes=notes),
        train=load_product_pins(*sources, splits=("train",), count=spec.instruments.train_pins, notes=notes),
        engaged=list(read_images(pins, engaged).values()) if engaged else [],
    )


def load_engaged_images(pins: Path, kept: Path, rule: EngagementRule, count: int, notes: Notes) -> list[Image.Image]:
    """Load at most `count` images of engaged pins, spread evenly; where none is known, other pins stand for them, held
    out if there are such, which is noted."""
    chosen = select_engaged_pins(pins, kept, rule)
    if len(chosen) < 2:
        notes.add("fewer than two pins have engagement, so images are compared with other pins")
        split_of = tables.read_kept_splits(pins, kept)
        held_out = [pin for pin, split in split_of.items() if split in tables.HELD_OUT_SPLITS]
        chosen = held_out if len(held_out) > 1 else list(split_of)
    return list(read_images(pins, select_evenly(chosen, count)).values())


def select_engaged_pins(pins: Path, kept: Path, rule: EngagementRule) -> list[str]:
    """Return the promoted product pins of any split that people engaged with as with the best of the train split;
    none where nobody saved or clicked one of that split."""
    split_of = tables.read_kept_splits(pins, kept)
    columns = ["pin_id", "product_id", "promoted", "impressions", "saves", "clicks"]
    rates = {
        row["pin_id"]: (rule.saves_weight * (row["saves"] or 0) + (row["clicks"] or 0)) / row["impressions"]
        for row in tables.read(pins, columns).to_pylist()
        if row["pin_id"] in split_of
        and row["promoted"]
        and row["product_id"] is not None
        and (row["impressions"] or 0) >= rule.min_impressions
    }
    best = sorted((rate for pin, rate in rates.items() if split_of[pin] == "train"), reverse=True)
    if not any(best):
        return []
    threshold = best[max(1, round(rule.share * len(best))) - 1]
    return [pin for pin, rate in rates.items() if rate >= threshold]
