"""Comparisons that the reward model is trained on, calibrated with and scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from canvas.pins.tables import SPLITS
from canvas.reward.comparisons import Comparison, ComparisonBatches, sample_comparisons, sample_real_comparisons
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.product_views import ProductView, load_background_views, load_product_views
from canvas.reward.spec import RewardSpec, RewardTrainingSpec
from canvas.train.spec import TrainSpec

SCORED_SETS = ("mixed", "known_kinds", "unseen_kinds")
"""Sets of comparisons that the metrics are of."""

HELD_OUT_SPLITS = ("unseen_product", "unseen_both")
"""Splits whose products nobody trains on."""

CALIBRATION_SPLITS = ("unseen_view",)
"""Splits of images that nobody trains on, of products that training knows."""

MAX_BACKGROUNDS = 64
"""Backgrounds that the model tells from the one asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardTables:
    """Where the tables of the catalogue lie."""

    pins: Path
    kept: Path
    truth: Path
    masks: Path
    captions: Path


def build_comparison_sets(
    tables: RewardTables,
    params: RewardTrainingSpec,
    spec: TrainSpec,
    reward: RewardSpec,
    human_products: Collection[str],
) -> dict[str, ComparisonBatches]:
    """Return the sets "train", "calibrate", "mixed", "known_kinds" and "unseen_kinds".

    Half of the pins of held-out products are scored, except `human_products`, which people's comparisons train on; the
    other half, and unseen views of products that training knows, calibrate.

    Raises:
        ValueError: `held_out_kinds` names no corruption or leaves none to train on; no pin has an accepted mask.
    """
    kinds, side = select_trained_kinds(params.held_out_kinds), reward.image_size
    product_tables = tables.pins, tables.kept, tables.masks, tables.captions

    def load_views(splits: Collection[str], count: int) -> list[ProductView]:
        return load_product_views(*product_tables, splits=splits, side=side, count=count)

    views, held_out = load_views(("train",), params.pins), load_views(HELD_OUT_SPLITS, params.scored_pins)
    halves = [[view for view in held_out if crc32(view.pin_id.encode()) % 2 == half] or held_out for half in (0, 1)]
    scored = [view for view in halves[1] if (view.product_id or view.pin_id) not in human_products] or halves[1]
    unseen = load_views(CALIBRATION_SPLITS, params.scored_pins)
    aside = sorted({view.pin_id: view for view in [*halves[0], *unseen]}.values(), key=lambda view: view.pin_id)
    scenes, other_scenes = (
        load_background_views(
            tables.pins, tables.kept, tables.truth, tables.captions, splits=splits, side=side, count=params.scenes
        )
        for splits in (("train",), tuple(split for split in SPLITS if split != "train"))
    )
    count, each, seed = params.scored_each * len(kinds), params.scored_each, params.seed

    def compare_with_real(chosen: Sequence[str]) -> list[Comparison]:
        return [pair for kind in chosen for pair in sample_real_comparisons(scored, kind, each, seed + 3)]

    sets = {
        "train": (sample_comparisons(views, scenes, kinds, params.comparisons, seed), views, scenes),
        "calibrate": (sample_comparisons(aside, other_scenes, kinds, 2 * count, seed + 1), aside, other_scenes),
        "mixed": (sample_comparisons(scored, other_scenes, kinds, count, seed + 2), scored, other_scenes),
        "known_kinds": (compare_with_real(kinds), scored, other_scenes),
        "unseen_kinds": (compare_with_real(params.held_out_kinds), scored, other_scenes),
    }
    return {
        name: ComparisonBatches(*columns, words=reward.words, batch_size=spec.batch_size, seed=spec.seed)
        for name, columns in sets.items()
    }


def select_trained_kinds(held_out: Sequence[str]) -> list[str]:
    """Return the corruptions that training shows: all but the held-out ones, of which there must be some."""
    kinds = [kind for kind in CORRUPTIONS if kind not in held_out]
    if not kinds or not held_out or set(held_out) - CORRUPTIONS.keys():
        raise ValueError(
            f"train_reward.held_out_kinds is {list(held_out)}: name some of {', '.join(CORRUPTIONS)}, "
            "and leave some to train on"
        )
    return kinds


def list_common_backgrounds(batches: ComparisonBatches) -> list[str]:
    """Return the backgrounds in words that most of the pins show, at most MAX_BACKGROUNDS."""
    counts = Counter(view.background for view in batches.views)
    counts.update(scene.background for scene in batches.scenes)
    return [background for background, _ in counts.most_common() if background][:MAX_BACKGROUNDS]
