"""Agreement of a reward model with labelled comparisons, question by question.

Arrays have a row a comparison and a column a question; NaN: unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    by_pin: dict[str, list[float]] = {}
    for row in np.flatnonzero(~np.isnan(preferred) & (preferred != 0.5)):
        right = (judged.first[row, question] > judged.second[row, question]) == (preferred[row] > 0.5)
        by_pin.setdefault(judged.pins[int(row)], []).append(float(right))
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
        given, good = _select_labelled(judged, *chances, column)
        if given.size:
            logits, _ = _select_labelled(judged, judged.first, judged.second, column)
            raw = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
            errors[f"{question}_ece"] = expected_calibration_error(given, good)
            errors[f"{question}_ece_raw"] = expected_calibration_error(raw, good)
    return errors


def _select_labelled(judged: ScoredComparisons, first: Values, second: Values, question: int) -> tuple[Values, Values]:
    """Return the values of all labelled images, and whether each is good."""
    values = np.concatenate([first[:, question], second[:, question]])
    good = np.concatenate([judged.first_good[:, question], judged.second_good[:, question]])
    labelled = ~np.isnan(good)
    return values[labelled], good[labelled]
