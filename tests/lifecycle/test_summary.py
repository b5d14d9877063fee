"""What a user reads at the end of a run."""

from __future__ import annotations

import pytest

from lifecycle.summary import readable_size
from tests.lifecycle.conftest import NOBODY, Project


def test_what_was_made_and_what_was_not(bare_project: Project) -> None:
    for stage in ("fetch", "train"):
        bare_project.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)
    lines = [" ".join(line.split()) for line in bare_project.lifecycle("summary").stdout.splitlines()]
    assert lines == [
        "fetch: Multiply the raw numbers.",
        "artifacts/numbers 3 B",
        "train: Sum the numbers, a step at a time, from where it was.",
        "models/weights 2 B",
        "reports/train.json total 12, first.step 0",
        "reports/train_loss.csv 43 B",
        "score: Compare the model with the numbers.",
        "reports/score.html not made yet",
        "reports/score.png not made yet",
        "Runs: make ui",
    ]


def test_stages_are_listed_in_order(bare_project: Project) -> None:
    assert bare_project.lifecycle("stages").stdout.splitlines() == [
        "fetch  Multiply the raw numbers.",
        "train  Sum the numbers, a step at a time, from where it was.",
        "score  Compare the model with the numbers.",
    ]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (5 * 10**15, "5e+03 TB")]
)
def test_sizes(size: int, text: str) -> None:
    assert readable_size(size) == text
