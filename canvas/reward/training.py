"""Training of the reward model: comparisons to train on, to calibrate with and to score on, a run, and its sheet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image

from canvas.clip.model import TextTower
from canvas.pins import tables
from canvas.pins.fallbacks import Notes, choose_product_splits
from canvas.pins.images import draw_contact_sheet
from canvas.reward.batches import ComparisonBatches, HumanBatches, MixedBatches, Tokenize
from canvas.reward.comparisons import (
    Comparison,
    Variant,
    render_variant,
    sample_background_comparisons,
    sample_comparisons,
    sample_real_comparisons,
)
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.human_comparisons import HumanComparisons
from canvas.reward.model import RewardModel, build_reward, predict_scores
from canvas.reward.objective import RewardObjective
from canvas.reward.product_views import (
    UNSEEN_PRODUCT_SPLITS,
    ProductView,
    RewardTables,
    load_background_views,
    load_product_views,
)
from canvas.reward.spec import HEADS, RewardSpec, RewardTrainingSpec
from canvas.train.data import PrefetchedBatches
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec

SCORED_SETS = ("mixed", "known_kinds", "unseen_kinds", "backgrounds")  # of comparisons, for the metrics
NAMED_BACKGROUNDS = 12  # at most in a message
CALIBRATION_SPLITS = ("unseen_view",)  # of images that nobody trains on, of products that training knows


def build_comparison_sets(
    paths: RewardTables,
    params: RewardTrainingSpec,
    spec: TrainSpec,
    reward: RewardSpec,
    human_products: Collection[str],
    tokenize: Tokenize,
    notes: Notes,
) -> dict[str, ComparisonBatches]:
    """Return the sets "train", "calibrate", and SCORED_SETS.

    Half of the pins of held-out products are scored, except `human_products`, which people's comparisons train on; the
    other half, and unseen views of products that training knows, calibrate. Where no product is held out, others stand
    for them, which is noted.

    Raises:
        ValueError: `held_out_kinds` names no corruption or leaves none to train on; `held_out_backgrounds` names what
            no image shows; no pin has an accepted mask, or none that shows another background than those.
    """
    kinds, side = select_trained_kinds(params.held_out_kinds), reward.image_size
    splits_of = [
        choose_product_splits(paths.pins, paths.kept, paths.masks, wanted, notes)
        for wanted in (("train",), UNSEEN_PRODUCT_SPLITS)
    ]
    views = load_product_views(paths, splits=splits_of[0], side=side, count=params.pins)
    held_out = load_product_views(paths, splits=splits_of[1], side=side, count=params.scored_pins)
    if not views or not held_out:
        raise ValueError("no kept pin has an accepted mask: there is nothing to judge")
    scenes, other_scenes = (
        load_background_views(paths, splits=splits, side=side, count=params.scenes)
        for splits in (("train",), tables.HELD_OUT_SPLITS)
    )
    check_held_out_backgrounds(
        params.held_out_backgrounds,
        {view.background for view in [*views, *held_out]} | {scene.background for scene in [*scenes, *other_scenes]},
    )
    views = [view for view in views if view.background not in params.held_out_backgrounds]
    if not views:
        raise ValueError(f"train_reward.held_out_backgrounds {list(params.held_out_backgrounds)} are all: leave some")
    halves = [[view for view in held_out if crc32(view.pin_id.encode()) % 2 == half] or held_out for half in (0, 1)]
    scored = [view for view in halves[1] if (view.product_id or view.pin_id) not in human_products] or halves[1]
    unseen = load_product_views(paths, splits=CALIBRATION_SPLITS, side=side, count=params.scored_pins)
    aside = sorted({view.pin_id: view for view in [*halves[0], *unseen]}.values(), key=lambda view: view.pin_id)
    scenes = [scene for scene in scenes if scene.background not in params.held_out_backgrounds]
    count, each, seed = params.scored_each * len(kinds), params.scored_each, params.seed

    def compare_with_real(chosen: Sequence[str]) -> list[Comparison]:
        return [pair for kind in chosen for pair in sample_real_comparisons(scored, kind, each, seed + 3)]

    sets = {
        "train": (sample_comparisons(views, scenes, kinds, params.comparisons, seed), views, scenes),
        "calibrate": (sample_comparisons(aside, other_scenes, kinds, 2 * count, seed + 1), aside, other_scenes),
        "mixed": (sample_comparisons(scored, other_scenes, kinds, count, seed + 2), scored, other_scenes),
        "known_kinds": (compare_with_real(kinds), scored, other_scenes),
        "unseen_kinds": (compare_with_real(params.held_out_kinds), scored, other_scenes),
        "backgrounds": (sample_background_comparisons(scored, other_scenes, 4 * each, seed + 4), scored, other_scenes),
    }
    if not sets["backgrounds"][0]:  # held-out images all name one background, or none
        notes.add("no two held-out images name different backgrounds, so prompts are not scored")
        del sets["backgrounds"]
    return {
        name: ComparisonBatches(*columns, tokenize=tokenize, batch_size=spec.batch_size, seed=spec.seed)
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


def check_held_out_backgrounds(held_out: Sequence[str], backgrounds: Collection[str]) -> None:
    """Raise ValueError if a held-out background is none that an image shows."""
    if unknown := [name for name in held_out if name not in backgrounds]:
        names = [repr(name) for name in sorted(backgrounds) if name]
        more = f" and {len(names) - NAMED_BACKGROUNDS} more" if len(names) > NAMED_BACKGROUNDS else ""
        raise ValueError(
            f"train_reward.held_out_backgrounds {unknown} are in no image's caption: name some of "
            f"{', '.join(names[:NAMED_BACKGROUNDS])}{more}"
        )


def fit_reward(
    reward: RewardSpec,
    params: RewardTrainingSpec,
    spec: TrainSpec,
    tower: TextTower,
    synthetic: ComparisonBatches,
    human: HumanComparisons | None,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> tuple[RewardModel, TrainResult]:
    """Return a trained reward model, not yet calibrated.

    Args:
        tower: What reads prompts (`canvas.reward.model.load_prompt_tower`).
        human: What people compared, of which every batch has `params.human_share`; None: training uses none of it.
            Candidates are ranked by how plainly they show the prompted background, until people have said which
            image they would take.
    """
    torch.manual_seed(spec.seed)
    network = build_reward(reward, tower)
    batches: ComparisonBatches | MixedBatches = synthetic
    if human is not None:
        batches = MixedBatches(synthetic, HumanBatches(human.train, tokenize=synthetic.tokenize), params.human_share)
    objective = RewardObjective(params.absolute_weight, params.background_weight)
    result = fit(network, objective, PrefetchedBatches(batches), spec, checkpoints=checkpoints, log=log)
    network.register_to_config(rated=human is not None and human.rank_images)
    return network.eval(), result


def draw_reward_sheet(network: RewardModel, views: Sequence[ProductView], count: int, seed: int) -> Image.Image:
    """Draw `count` pins in rows, real and under each corruption: defects, fidelity and aesthetics in hundredths."""
    variants = [Variant(), *(Variant(kind, 0.6, seed) for kind in CORRUPTIONS)]
    cells, labels = [], []
    for view in views[:: max(1, len(views) // count)][:count]:
        images = np.stack([render_variant(view, variant, ()) for variant in variants])
        scores = predict_scores(
            network,
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(view.pixels.copy()).permute(2, 0, 1)[None],
            torch.from_numpy(view.mask)[None, None],
        )
        cells += [Image.fromarray(image) for image in images]
        for place, variant in enumerate(variants):
            numbers = " ".join(f"{100 * float(scores[head][place]):.0f}" for head in HEADS[:3])
            labels.append(f"{variant.kind or 'real'} {numbers}")
    return draw_contact_sheet(cells, labels, columns=len(variants), cell=128)
