"""Detection of planted defects by the reasons for dropping pins. Labels are strings; None: no defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sklearn.metrics import precision_recall_fscore_support


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts and rates of one defect over all pins; rates are in 0..1, NaN where undefined."""

    defect: str
    planted: int
    detected: int
    precision: float
    recall: float
    dropped: float


def score_detections(
    planted: Sequence[str | None], reasons: Sequence[str | None], defects: Sequence[str]
) -> list[Detection]:
    """Score each defect d; pin i has planted[i] and reasons[i], the first one against it.

    precision = |planted = d and reason = d| / |reason = d|
    recall = |planted = d and reason = d| / |planted = d|
    dropped = |planted = d and reason is not None| / |planted = d|, the recall for any reason.
    """
    assert len(planted) == len(reasons), (len(planted), len(reasons))
    truth, verdict = ([label or "" for label in labels] for labels in (planted, reasons))
    precision, recall, _, _ = precision_recall_fscore_support(
        truth, verdict, labels=list(defects), zero_division=float("nan")
    )
    rows = []
    for index, defect in enumerate(defects):
        verdicts = [label for label, true in zip(verdict, truth, strict=True) if true == defect]
        dropped = sum(label != "" for label in verdicts) / len(verdicts) if verdicts else float("nan")
        rows.append(
            Detection(
                defect=defect,
                planted=len(verdicts),
                detected=verdict.count(defect),
                precision=float(precision[index]),
                recall=float(recall[index]),
                dropped=dropped,
            )
        )
    return rows


def compute_good_pass_rate(planted: Sequence[str | None], reasons: Sequence[str | None]) -> float:
    """Return the share of good pins that pass, |planted = None and reason = None| / |planted = None|; nan for none."""
    verdicts = [label for label, true in zip(reasons, planted, strict=True) if true is None]
    return sum(label is None for label in verdicts) / len(verdicts) if verdicts else float("nan")
