"""What a user reads at the end of a run."""

from __future__ import annotations

import json

from tests.lifecycle.conftest import NOBODY, Project

SHOW = """
import json

from lifecycle.declare.stage import Collected, Headline, Output, Report, Verdict, stage


class Judgement(Verdict, path="artifacts/judgement.json"):
    '''Whether the sum will do.'''


@stage()
def show(collected: Collected, metrics: Output[Headline], judgement: Output[Judgement], page: Output[Report]) -> None:
    '''Show what was made.'''
    files = {exhibit.argument: exhibit.path for exhibit in collected.exhibits if exhibit.stage == "train"}
    total = json.loads(files["metrics"].read_text())["total"]
    metrics.path.write_text(json.dumps({"sum_of_all_numbers": total}))
    reasons = [f"reason {number}" for number in range(7)]
    judgement.path.write_text(json.dumps({"outcome": "pending", "reasons": reasons}))
    page.path.write_text(f"<title>{[exhibit.argument for exhibit in collected.exhibits]}</title>")
"""


def test_a_run_on_one_screen(bare_project: Project) -> None:
    (bare_project.root / "components" / "show.py").write_text(SHOW)
    for stage in ("fetch", "train"):
        bare_project.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)
    assert bare_project.lifecycle("summary").stdout.splitlines() == [
        "Not run: score, show",
        "Runs:    make ui",
        "Try it:  cat models/weights/model.safetensors",
    ]
    for stage in ("score", "show"):
        done = bare_project.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)
        assert done.returncode == 0, done.stderr
    assert bare_project.lifecycle("summary").stdout.splitlines() == [
        "Verdict: pending",
        *(f"  - reason {number}" for number in range(5)),
        "  and 2 more",
        "  sum of all numbers                           12",
        f"Report:  {bare_project.root / 'reports/show/page.html'}",
        "Runs:    make ui",
        "Try it:  cat models/weights/model.safetensors",
    ]
    assert json.loads(bare_project.read("reports/show/metrics.json")) == {"sum_of_all_numbers": 12}
    assert bare_project.read("reports/show/page.html") == "<title>['metrics', 'losses', 'report', 'sheet']</title>"


def test_stages_are_listed_in_order(bare_project: Project) -> None:
    assert bare_project.lifecycle("stages").stdout.splitlines() == [
        "fetch  Multiply the raw numbers.",
        "train  Sum the numbers, a step at a time, from where it was.",
        "score  Compare the model with the numbers.",
    ]
