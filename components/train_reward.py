"""Stage `train_reward`: real and corrupted pictures, and what people said, in; a model that judges pictures out."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from canvas.pins.tables import SPLITS
from canvas.reward.spec import HEADS, RewardSpec
from canvas.train.spec import Train, TrainableParams, Training, TrainSpec
from components import artifacts
from components.artifacts import Captions, Kept, Masks, Pins, Preferences, SyntheticJudgments, Truth
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage

if TYPE_CHECKING:
    from canvas.reward.comparisons import Comparison, ComparisonBatches
    from canvas.reward.human_comparisons import HumanBatches, HumanComparisons
    from canvas.reward.model import RewardModel
    from canvas.train.data import Batches
    from evaluation.measures.rewards import ScoredComparisons

SCORED_SETS = ("mixed", "known_kinds", "unseen_kinds")
"""Sets of comparisons that figures are of."""

HELD_OUT_SPLITS = ("unseen_product", "unseen_both")
"""Splits whose products nobody trains on."""

MAX_BACKGROUNDS = 64
"""That the model tells from the one asked for."""

CALIBRATION_SPLITS = ("unseen_view",)
"""Splits of pictures that nobody trains on, of products that training knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRewardParams(TrainableParams):
    train: Train
    pins: int  # with a product, at most
    scenes: int  # pictures to place products in, at most
    comparisons: int  # to train on
    held_out_kinds: tuple[str, ...]  # corruptions that training never shows
    scored_pins: int  # of held-out products, at most
    scored_each: int  # comparisons of each kind of corruption
    human_share: float  # of what people compared, in every batch, once they have said enough; 0: none
    min_human: int  # judgments that are enough
    absolute_weight: float  # of the absolute loss beside the pairwise one
    background_weight: float  # of telling backgrounds apart, likewise
    score_batch: int
    sheet_pins: int
    seed: int  # of the comparisons

    def __post_init__(self) -> None:
        for name in ("pins", "comparisons", "scored_pins", "scored_each", "score_batch", "sheet_pins", "min_human"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"train_reward.{name} is {value}: it must be 1 or more")
        if self.human_share and not 1 <= self.human_share * self.train.batch_size <= self.train.batch_size:
            raise ValueError(
                f"train_reward.human_share is {self.human_share}: it must be 0, or at most 1 and at least one of the "
                f"{self.train.batch_size} of a batch"
            )


@stage(machine="gpu")
def train_reward(
    train_reward: TrainRewardParams,
    training: Training,
    reward: RewardSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    masks: Input[Masks],
    captions: Input[Captions],
    preferences: Input[Preferences],
    model: Output[artifacts.RewardModel],
    judgments: Output[SyntheticJudgments],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the reward model on synthetic judgments and what people said, and score it on what it never saw.

    The sheet shows held-out pins under every corruption, with the scores of the reward model.
    """
    import torch

    from canvas.pins.images import encode_png
    from canvas.reward.human_comparisons import read_human_comparisons
    from canvas.reward.model import build_reward
    from canvas.reward.objective import RewardObjective, set_calibration
    from canvas.reward.sheet import draw_reward_sheet
    from canvas.reward.synthetic_judgments import write_synthetic_judgments
    from canvas.train.loop import fit
    from evaluation.measures.rewards import fit_calibrations

    params, spec, clock = train_reward, training.resolve(train_reward.train), time.perf_counter()
    sources = {
        "pins": pins.path,
        "kept": kept.path,
        "truth": truth.path,
        "masks": masks.path,
        "captions": captions.path,
    }
    said = read_human_comparisons(preferences.path, pins.path, held_out=HELD_OUT_SPLITS, side=reward.image_size)
    enough = params.human_share > 0 and sum(one.judgments for one in said.learnt) >= params.min_human
    sets = _sets(params, spec, reward, sources, said.products if enough else frozenset())
    drawn = time.perf_counter()
    torch.manual_seed(spec.seed)
    network = build_reward(reward)
    fitted = fit(
        network,
        RewardObjective(params.absolute_weight, params.background_weight),
        _mixed(sets["train"], said, params.human_share) if enough else sets["train"],
        spec,
        checkpoints=scratch.path / "checkpoints",
        log=log.metrics,
    )
    trained = time.perf_counter()
    network.eval()
    if not enough:  # people's overall judgments rank candidates by more than their backgrounds
        network.register_to_config(backgrounds=_backgrounds(sets["train"]))
    set_calibration(network, fit_calibrations(_judged(network, sets["calibrate"], params, spec), HEADS))
    network.save_pretrained(model.path)

    scored = {name: _judged(network, sets[name], params, spec) for name in SCORED_SETS}
    figures = _figures(network, scored)
    figures |= {
        "human": _human_figures(network, said, enough, params, spec),
        "comparisons": len(sets["train"].comparisons),
        "pins": len(sets["train"].views),
        "held_out_pins": len(sets["mixed"].views),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "images_per_second": 2 * fitted.images_per_second,
        "seconds": {"draw": drawn - clock, "train": trained - drawn, "score": time.perf_counter() - trained},
    }
    write_synthetic_judgments(judgments.path, sets)
    metrics.path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    curve = "".join(f"{step},{loss:.6g}\n" for step, loss in fitted.losses)
    losses.path.write_text(f"step,loss\n{curve}", encoding="utf-8")
    sheet.path.write_bytes(encode_png(draw_reward_sheet(network, sets["mixed"].views, params.sheet_pins, params.seed)))


def _sets(
    params: TrainRewardParams,
    spec: TrainSpec,
    reward: RewardSpec,
    sources: Mapping[str, Path],
    learnt: Collection[str],
) -> dict[str, ComparisonBatches]:
    """Comparisons to train on, to calibrate with and to score. Half of the pins of held-out products are scored, but
    for the products `learnt` from people; the other half, and unseen views of products that are known, calibrate."""
    from canvas.reward.comparisons import ComparisonBatches, sample_comparisons, sample_real_comparisons
    from canvas.reward.product_views import load_background_views, load_product_views

    kinds = _trained_kinds(params)
    tables, side = [sources[name] for name in ("pins", "kept", "masks", "captions")], reward.image_size
    views = load_product_views(*tables, splits=("train",), side=side, count=params.pins)
    held_out = load_product_views(*tables, splits=HELD_OUT_SPLITS, side=side, count=params.scored_pins)
    halves = [[view for view in held_out if crc32(view.pin_id.encode()) % 2 == half] or held_out for half in (0, 1)]
    halves[1] = [view for view in halves[1] if (view.product_id or view.pin_id) not in learnt] or halves[1]
    seen = load_product_views(*tables, splits=CALIBRATION_SPLITS, side=side, count=params.scored_pins)
    aside = sorted({view.pin_id: view for view in [*halves[0], *seen]}.values(), key=lambda view: view.pin_id)
    tables = [sources[name] for name in ("pins", "kept", "truth", "captions")]
    scenes, other_scenes = (
        load_background_views(*tables, splits=splits, side=side, count=params.scenes)
        for splits in (("train",), tuple(split for split in SPLITS if split != "train"))
    )
    count, each, seed = params.scored_each * len(kinds), params.scored_each, params.seed

    def with_real(chosen: Sequence[str]) -> list[Comparison]:
        return [one for kind in chosen for one in sample_real_comparisons(halves[1], kind, each, seed + 3)]

    of_views = {
        "train": (sample_comparisons(views, scenes, kinds, params.comparisons, seed), views, scenes),
        "calibrate": (sample_comparisons(aside, other_scenes, kinds, 2 * count, seed + 1), aside, other_scenes),
        "mixed": (sample_comparisons(halves[1], other_scenes, kinds, count, seed + 2), halves[1], other_scenes),
        "known_kinds": (with_real(kinds), halves[1], other_scenes),
        "unseen_kinds": (with_real(params.held_out_kinds), halves[1], other_scenes),
    }
    return {
        name: ComparisonBatches(*rest, words=reward.words, batch_size=spec.batch_size, seed=spec.seed)
        for name, rest in of_views.items()
    }


def _backgrounds(batches: ComparisonBatches) -> list[str]:
    """Those that most of the pins show, in words."""
    from collections import Counter

    found = Counter(view.background for view in batches.views)
    found.update(scene.background for scene in batches.scenes)
    return [background for background, _ in found.most_common() if background][:MAX_BACKGROUNDS]


def _trained_kinds(params: TrainRewardParams) -> list[str]:
    """The corruptions that training shows. Raises `ValueError` for names that are none, or if none is left."""
    from canvas.reward.corruptions import CORRUPTIONS

    kinds = [kind for kind in CORRUPTIONS if kind not in params.held_out_kinds]
    if not kinds or not params.held_out_kinds or set(params.held_out_kinds) - CORRUPTIONS.keys():
        raise ValueError(
            f"train_reward.held_out_kinds is {list(params.held_out_kinds)}: name some of {', '.join(CORRUPTIONS)}, "
            "and leave some to train on"
        )
    return kinds


def _mixed(synthetic: ComparisonBatches, said: HumanComparisons, share: float) -> Batches:
    from canvas.reward.human_comparisons import HumanBatches, MixedBatches

    return MixedBatches(synthetic, HumanBatches(said.learnt, words=synthetic.words), share)


def _human_figures(
    network: RewardModel, said: HumanComparisons, learnt: bool, params: TrainRewardParams, spec: TrainSpec
) -> dict[str, float | dict[str, float]]:
    """Judgments by people that there are and that training used; accuracy by question on what it did not use."""
    from canvas.reward.human_comparisons import HumanBatches
    from evaluation.measures.rewards import compute_accuracies

    judgments = {name: sum(one.judgments for one in getattr(said, name)) for name in ("learnt", "held_out")}
    figures: dict[str, Any] = {"judgments": sum(judgments.values()), "used": judgments["learnt"] if learnt else 0}
    if said.held_out:
        batches = HumanBatches(said.held_out, words=network.config["words"])
        figures["held_out"] = compute_accuracies(_judged(network, batches, params, spec), HEADS)
    return figures


def _judged(
    network: RewardModel, batches: ComparisonBatches | HumanBatches, params: TrainRewardParams, spec: TrainSpec
) -> ScoredComparisons:
    """What the model says of comparisons as they are, beside what is known; in the precision of its training."""
    import numpy as np
    import torch

    from canvas.reward.objective import compute_logits
    from canvas.train.data import move_batch
    from canvas.train.precision import autocast, choose_autocast_dtype
    from evaluation.measures.rewards import ScoredComparisons

    columns: dict[str, list[Any]] = {}
    comparisons: Sequence[Any] = batches.comparisons
    half = choose_autocast_dtype(network.device, spec.precision)
    with torch.no_grad(), autocast(half, network.device):
        for first in range(0, len(comparisons), params.score_batch):
            batch = batches.batch(comparisons[first : first + params.score_batch])
            columns.setdefault("pins", []).append(batch["pin_id"])
            found = dict(
                zip(("first", "second"), compute_logits(network, move_batch(batch, network.device)), strict=True)
            )
            for name in ("first", "second", "preferred", "first_good", "second_good"):
                known = torch.as_tensor(found.get(name, batch[name]))
                columns.setdefault(name, []).append(known.double().cpu().numpy())
    pins = [str(pin) for part in columns.pop("pins") for pin in part]
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return ScoredComparisons(pins=pins, kinds=[one.kinds for one in comparisons], **arrays)


def _figures(network: RewardModel, scored: Mapping[str, ScoredComparisons]) -> dict[str, Any]:
    """Accuracies and calibration errors by question: mixed comparisons, and real pictures against corrupted ones of
    known and unseen kinds; by kind, of what the kind hurts most plainly."""
    import torch

    from canvas.reward.corruptions import CORRUPTIONS
    from canvas.reward.model import calibrate_logits
    from evaluation.measures.rewards import compute_accuracies, compute_accuracy, compute_calibration_errors

    figures: dict[str, Any] = {}
    for name, judged in scored.items():
        first, second = (
            calibrate_logits(network, torch.from_numpy(logits).float().to(network.device)).double().cpu().numpy()
            for logits in (judged.first, judged.second)
        )
        figures[name] = compute_accuracies(judged, HEADS) | compute_calibration_errors(judged, (first, second), HEADS)
    by_kind: dict[str, dict[str, float]] = {}
    for name in ("known_kinds", "unseen_kinds"):
        for kind, corruption in CORRUPTIONS.items():
            for question in sorted(corruption.hurts):
                if (of := compute_accuracy(scored[name].of(kind), HEADS.index(question))) is not None:
                    by_kind.setdefault(kind, {})[question] = of.mean
    return figures | {"accuracy_by_kind": by_kind}
