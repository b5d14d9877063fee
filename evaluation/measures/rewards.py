"""How often a reward model agrees with what is known of pictures, question by question.

Arrays have a row a comparison and a column a question; NaN: not known or not asked.
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
    """Comparisons, what the model said of both pictures, and what is known of them."""

    pins: Sequence[str]
    kinds: Sequence[frozenset[str]]  # of corruptions in each
    first: Values  # logits
    second: Values
    preferred: Values  # 1, 0 or 0.5 for a tie
    first_good: Values  # 1 or 0
    second_good: Values

    def of(self, kind: str) -> ScoredComparisons:
        """Those with a corruption of that kind."""
        rows = [row for row, kinds in enumerate(self.kinds) if kind in kinds]
        arrays = (self.first, self.second, self.preferred, self.first_good, self.second_good)
        return ScoredComparisons(
            [self.pins[row] for row in rows], [self.kinds[row] for row in rows], *(one[rows] for one in arrays)
        )


def compute_accuracy(judged: ScoredComparisons, question: int) -> Interval | None:
    """Share of comparisons in which the preferred picture got the higher score; ties of raters do not count.

    Comparisons of one pin depend on each other: each pin counts by its mean, and the interval resamples pins. None:
    nothing is known.
    """
    known = judged.preferred[:, question]
    asked = np.flatnonzero(~np.isnan(known) & (known != 0.5))
    by_pin: dict[str, list[float]] = {}
    for row in asked:
        right = (judged.first[row, question] > judged.second[row, question]) == (known[row] > 0.5)
        by_pin.setdefault(judged.pins[int(row)], []).append(float(right))
    return bootstrap_mean([float(np.mean(right)) for right in by_pin.values()]) if by_pin else None


def compute_accuracies(judged: ScoredComparisons, questions: Sequence[str]) -> dict[str, float]:
    """`QUESTION_accuracy` with the ends of its interval and the number of comparisons, of those that were asked."""
    found: dict[str, float] = {}
    for place, question in enumerate(questions):
        if (of := compute_accuracy(judged, place)) is not None:
            found |= {
                f"{question}_accuracy": of.mean,
                f"{question}_accuracy_low": of.low,
                f"{question}_accuracy_high": of.high,
                f"{question}_pairs": int((~np.isnan(judged.preferred[:, place])).sum()),
            }
    return found


def fit_calibrations(judged: ScoredComparisons, questions: Sequence[str]) -> dict[str, tuple[Values, Values]]:
    """Of each question the chances that a picture is good, at some logits
    (evaluation.statistics.calibration.fit_isotonic)."""
    of = {question: place for place, question in enumerate(questions)}
    return {
        question: fit_isotonic(*_select_labelled(judged, judged.first, judged.second, place))
        for question, place in of.items()
    }


def compute_calibration_errors(
    judged: ScoredComparisons, chances: tuple[Values, Values], questions: Sequence[str]
) -> dict[str, float]:
    """`QUESTION_ece` of the chances that the first and the second pictures are good, and `QUESTION_ece_raw` of the
    sigmoid of their logits."""
    found = {}
    for place, question in enumerate(questions):
        given, good = _select_labelled(judged, *chances, place)
        if given.size:
            logits, _ = _select_labelled(judged, judged.first, judged.second, place)
            found[f"{question}_ece"] = expected_calibration_error(given, good)
            found[f"{question}_ece_raw"] = expected_calibration_error(1 / (1 + np.exp(-np.clip(logits, -60, 60))), good)
    return found


def _select_labelled(judged: ScoredComparisons, first: Values, second: Values, question: int) -> tuple[Values, Values]:
    """What was said of all pictures of which it is known whether they are good, and whether."""
    said = np.concatenate([first[:, question], second[:, question]])
    good = np.concatenate([judged.first_good[:, question], judged.second_good[:, question]])
    known = ~np.isnan(good)
    return said[known], good[known]
