"""Metrics of a reward model: what it answers to comparisons, beside what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from canvas.reward.batches import ComparisonBatches, HumanBatches
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.human_comparisons import HumanComparisons
from canvas.reward.model import RewardModel, calibrate_logits
from canvas.reward.objective import compute_logits
from canvas.reward.spec import HEADS
from canvas.train.data import move_batch
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.train.spec import Precision
from evaluation.measures.rewards import (
    ScoredComparisons,
    compute_accuracies,
    compute_accuracy,
    compute_calibration_errors,
)


def score_comparisons(
    network: RewardModel, batches: ComparisonBatches | HumanBatches, batch_size: int, precision: Precision
) -> ScoredComparisons:
    """Return the logits of comparisons as they are, unvaried, beside what is known of them."""
    columns: dict[str, list[Any]] = {}
    comparisons: Any = batches.comparisons
    with torch.no_grad(), autocast(choose_autocast_dtype(network.device, precision), network.device):
        for start in range(0, len(comparisons), batch_size):
            batch = batches.batch(comparisons[start : start + batch_size])
            first, second = compute_logits(network, move_batch(batch, network.device))
            columns.setdefault("pins", []).append(batch["pin_id"])
            for name, values in {**batch, "first": first, "second": second}.items():
                if name in ("first", "second", "preferred", "first_good", "second_good"):
                    columns.setdefault(name, []).append(torch.as_tensor(values).double().cpu().numpy())
    pins = [str(pin) for part in columns.pop("pins") for pin in part]
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return ScoredComparisons(pins=pins, kinds=[pair.kinds for pair in comparisons], **arrays)


def compute_reward_metrics(network: RewardModel, scored: Mapping[str, ScoredComparisons]) -> dict[str, Any]:
    """Return accuracies and calibration errors by question of each set, and accuracies by kind of corruption.

    `scored` holds "mixed" comparisons, and real images against corrupted ones of "known_kinds" and "unseen_kinds"; the
    accuracy of a kind is that of the questions whose answer it lowers.
    """
    metrics: dict[str, Any] = {}
    for name, comparisons in scored.items():
        first, second = (
            calibrate_logits(network, torch.from_numpy(logits).float().to(network.device)).double().cpu().numpy()
            for logits in (comparisons.first, comparisons.second)
        )
        errors = compute_calibration_errors(comparisons, (first, second), HEADS)
        metrics[name] = compute_accuracies(comparisons, HEADS) | errors
    by_kind: dict[str, dict[str, float]] = {}
    for name in ("known_kinds", "unseen_kinds"):
        for kind, corruption in CORRUPTIONS.items():
            for question in sorted(corruption.hurts):
                if (accuracy := compute_accuracy(scored[name].select_kind(kind), HEADS.index(question))) is not None:
                    by_kind.setdefault(kind, {})[question] = accuracy.mean
    return metrics | {"accuracy_by_kind": by_kind}


def compute_human_metrics(
    network: RewardModel, human: HumanComparisons, trained_on: bool, batch_size: int, precision: Precision
) -> dict[str, Any]:
    """Return how many judgments people gave and training used, and accuracies by question on the held-out ones."""
    metrics: dict[str, Any] = {
        "judgments": human.train_judgments + sum(pair.judgments for pair in human.held_out),
        "used": human.train_judgments if trained_on else 0,
    }
    if human.held_out:
        batches = HumanBatches(human.held_out, words=network.config["words"])
        metrics["held_out"] = compute_accuracies(score_comparisons(network, batches, batch_size, precision), HEADS)
    return metrics
