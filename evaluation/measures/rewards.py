"""Agreement of a reward model with labelled comparisons, question by question.

Arrays have a row a comparison and a column a question; NaN: unlabelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from canvas.reward.batches import ComparisonBatches, HumanBatches
from canvas.reward.corruptions import CORRUPTIONS
from canvas.reward.human_comparisons import HumanComparisons
from canvas.reward.model import RewardModel, calibrate_logits
from canvas.reward.objective import compute_logits
from canvas.reward.spec import HEADS
from canvas.reward.training import SCORED_SETS
from canvas.train.data import move_batch
from canvas.train.precision import autocast, choose_autocast_dtype
from canvas.train.spec import Precision
from evaluation.statistics.calibration import expected_calibration_error, fit_isotonic
from evaluation.statistics.intervals import Interval, bootstrap_mean

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredComparisons:
    """Comparisons of two images: the model's logits and the labels."""

    pins: Sequence[str]
    kinds: Sequence[frozenset[str]]  # of corruptions in each
    first: Values  # logits
    second: Values
    preferred: Values  # 1, 0 or 0.5 for a tie
    first_good: Values  # 1 or 0
    second_good: Values

    def select_kind(self, kind: str) -> ScoredComparisons:
        """Return the comparisons with a corruption of that kind."""
        rows = [row for row, kinds in enumerate(self.kinds) if kind in kinds]
        arrays = (self.first, self.second, self.preferred, self.first_good, self.second_good)
        return ScoredComparisons(
            [self.pins[row] for row in rows], [self.kinds[row] for row in rows], *(array[rows] for array in arrays)
        )


def compute_accuracy(judged: ScoredComparisons, question: int) -> Interval | None:
    """Return the share of comparisons in which the preferred image got the higher score; ties of raters do not count.

    The interval resamples pins, each counting by its mean. None without labels.
    """
    preferred = judged.preferred[:, question]
    by_pin: dict[str, list[float]] = defaultdict(list)
    for row in np.flatnonzero(~np.isnan(preferred) & (preferred != 0.5)):
        right = (judged.first[row, question] > judged.second[row, question]) == (preferred[row] > 0.5)
        by_pin[judged.pins[int(row)]].append(float(right))
    return bootstrap_mean([float(np.mean(right)) for right in by_pin.values()]) if by_pin else None


def compute_accuracies(judged: ScoredComparisons, questions: Sequence[str]) -> dict[str, float]:
    """Return `QUESTION_accuracy` with its interval and the number of comparisons, of questions with labels."""
    metrics: dict[str, float] = {}
    for column, question in enumerate(questions):
        if (accuracy := compute_accuracy(judged, column)) is not None:
            metrics |= accuracy.to_metrics(f"{question}_accuracy")
            metrics[f"{question}_pairs"] = int((~np.isnan(judged.preferred[:, column])).sum())
    return metrics


def fit_calibrations(judged: ScoredComparisons, questions: Sequence[str]) -> dict[str, tuple[Values, Values]]:
    """Fit each question's probability that an image is good to its logits (calibration.fit_isotonic)."""
    return {
        question: fit_isotonic(*_select_labelled(judged, judged.first, judged.second, column))
        for column, question in enumerate(questions)
    }


def compute_calibration_errors(
    judged: ScoredComparisons, chances: tuple[Values, Values], questions: Sequence[str]
) -> dict[str, float]:
    """Return `QUESTION_ece` of the chances that images are good, and `QUESTION_ece_raw` of their logits' sigmoid."""
    errors = {}
    for column, question in enumerate(questions):
        calibrated, good = _select_labelled(judged, *chances, column)
        if calibrated.size:
            logits, _ = _select_labelled(judged, judged.first, judged.second, column)
            raw = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
            errors[f"{question}_ece"] = expected_calibration_error(calibrated, good)
            errors[f"{question}_ece_raw"] = expected_calibration_error(raw, good)
    return errors


def score_comparisons(
    network: RewardModel, batches: ComparisonBatches | HumanBatches, batch_size: int, precision: Precision
) -> ScoredComparisons:
    """Return the logits of comparisons as they are, unvaried, beside their labels."""
    pins: list[str] = []
    columns: dict[str, list[Values]] = defaultdict(list)
    comparisons: Any = batches.comparisons
    with torch.no_grad(), autocast(choose_autocast_dtype(network.device, precision), network.device):
        for start in range(0, len(comparisons), batch_size):
            batch = batches.batch(comparisons[start : start + batch_size])
            first, second = compute_logits(network, move_batch(batch, network.device))
            pins += batch["pin_id"]
            labels = {"preferred": batch["preferred"], "first_good": batch["first_good"]}
            labels |= {"second_good": batch["second_good"]}
            for name, values in {"first": first, "second": second, **labels}.items():
                columns[name].append(values.double().cpu().numpy())
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return ScoredComparisons(pins=pins, kinds=[pair.kinds for pair in comparisons], **arrays)


def measure_reward(
    network: RewardModel,
    sets: Mapping[str, ComparisonBatches],
    human: HumanComparisons,
    trained_on: bool,
    held_out_backgrounds: Collection[str],
    batch_size: int,
    precision: Precision,
) -> dict[str, Any]:
    """Return all that is measured of a calibrated reward model, and how much it was trained on and scored with.

    Args:
        sets: As `canvas.reward.training.build_comparison_sets` builds them.
        human: What people compared.
        trained_on: Whether training used those of them that it may.
        held_out_backgrounds: In words; training never showed them.
    """
    how = batch_size, precision
    scored = {name: score_comparisons(network, sets[name], *how) for name in SCORED_SETS if name in sets}
    by_background, backgrounds = scored.pop("backgrounds", None), {}
    if by_background is not None:
        prompts = [comparison.prompt for comparison in sets["backgrounds"].comparisons]
        backgrounds = compute_background_metrics(by_background, prompts, held_out_backgrounds)
    return compute_reward_metrics(network, scored) | {
        "backgrounds": backgrounds,
        "human": compute_human_metrics(network, human, trained_on, *how),
        "comparisons": len(sets["train"].comparisons),
        "pins": len(sets["train"].views),
        "held_out_pins": len(sets["mixed"].views),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


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


def compute_background_metrics(
    scored: ScoredComparisons, prompts: Sequence[str], held_out: Collection[str]
) -> dict[str, dict[str, float]]:
    """Return, of prompts that training showed ("known") and of those it did not ("unseen"), how often the image of a
    pair that shows the prompted background agrees more with the prompt: `accuracy` with its interval, and `pairs`.

    Args:
        scored: Comparisons of real images with their product in another scene.
        prompts: One a comparison.
        held_out: Backgrounds that training never showed.
    """
    prompted, overall = HEADS.index("prompted"), HEADS.index("overall")
    first, second = (logits[:, prompted] - logits[:, overall] for logits in (scored.first, scored.second))
    by_group: dict[str, dict[str, list[float]]] = {"known": {}, "unseen": {}}
    for row, prompt in enumerate(prompts):
        right = float((first[row] > second[row]) == (scored.preferred[row, prompted] > 0.5))
        group = by_group["unseen" if prompt in held_out else "known"]
        group.setdefault(scored.pins[row], []).append(right)
    return {
        name: bootstrap_mean([float(np.mean(right)) for right in group.values()]).to_metrics("accuracy")
        | {"pairs": sum(map(len, group.values()))}
        for name, group in by_group.items()
        if group
    }


def compute_human_metrics(
    network: RewardModel, human: HumanComparisons, trained_on: bool, batch_size: int, precision: Precision
) -> dict[str, Any]:
    """Return how many judgments people gave and training used, and accuracies by question on the held-out ones."""
    metrics: dict[str, Any] = {
        "judgments": human.train_judgments + sum(pair.judgments for pair in human.held_out),
        "used": human.train_judgments if trained_on else 0,
    }
    if human.held_out:
        batches = HumanBatches(human.held_out, tokenize=network.tokenize)
        scored = score_comparisons(network, batches, batch_size, precision)
        metrics["held_out"] = compute_accuracies(scored, HEADS) | compute_alone_accuracies(scored, HEADS)
    return metrics


def compute_alone_accuracies(judged: ScoredComparisons, questions: Sequence[str]) -> dict[str, float]:
    """Return `QUESTION_alone_accuracy`: of two images that people judged alone and unlike, how often the better one has
    the higher score, 0.5 by chance (the area under the ROC curve); and `QUESTION_alone`, how many images they are."""
    metrics: dict[str, float] = {}
    for column, question in enumerate(questions):
        is_judged = ~np.isnan(judged.first_good[:, column])
        better, gain = (
            np.subtract.outer(values[is_judged, column], values[is_judged, column])
            for values in (judged.first_good, judged.first)
        )
        if (better > 0).any():
            right = np.where(gain == 0, 0.5, gain > 0)[better > 0]
            metrics |= {f"{question}_alone_accuracy": float(right.mean()), f"{question}_alone": int(is_judged.sum())}
    return metrics


def _select_labelled(judged: ScoredComparisons, first: Values, second: Values, question: int) -> tuple[Values, Values]:
    """Return the values of all labelled images, and whether each is good."""
    values = np.concatenate([first[:, question], second[:, question]])
    good = np.concatenate([judged.first_good[:, question], judged.second_good[:, question]])
    labelled = ~np.isnan(good)
    return values[labelled], good[labelled]
