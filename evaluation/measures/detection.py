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
    found: int
    precision: float
    recall: float
    dropped: float


def score_detections(
    planted: Sequence[str | None], found: Sequence[str | None], defects: Sequence[str]
) -> list[Detection]:
    """Score each defect d; pin i has planted[i] and found[i], the first reason against it.

    precision = |planted = d and found = d| / |found = d|
    recall = |planted = d and found = d| / |planted = d|
    dropped = |planted = d and found is not None| / |planted = d|, the recall for any reason.
    """
    assert len(planted) == len(found), (len(planted), len(found))
    truth, verdict = ([label or "" for label in labels] for labels in (planted, found))
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
                found=verdict.count(defect),
                precision=float(precision[index]),
                recall=float(recall[index]),
                dropped=dropped,
            )
        )
    return rows


def compute_good_pass_rate(planted: Sequence[str | None], found: Sequence[str | None]) -> float:
    """Return the share of good pins that pass, |planted = None and found = None| / |planted = None|; nan for none."""
    verdicts = [label for label, true in zip(found, planted, strict=True) if true is None]
    return sum(label is None for label in verdicts) / len(verdicts) if verdicts else float("nan")
