"""From a candidate to the champion, and why a worse one does not get there: real stages on a real registry."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canvas.align.spec import EVIDENCE_FILE
from canvas.light.spec import LIGHT_FOLDER
from canvas.pins.tables import EVALUATION, read
from canvas.reward.spec import REWARD_FOLDER
from components import artifacts
from lifecycle.__main__ import main
from lifecycle.declare.graph import load_stage
from lifecycle.declare.stage import Model
from lifecycle.registry import pinned
from tests.components.judged import Judged, empty
from tests.evaluation.test_gates import make_judgments
from tests.lifecycle.registering import item, open_registry, record


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return empty(tmp_path)


def aliases(project: Judged) -> dict[str, set[str]]:
    """Alias and version -> the models that have it."""
    holders: dict[str, set[str]] = {}
    for model in open_registry(project.root).versions.client.search_registered_models():
        for alias, version in model.aliases.items():
            holders.setdefault(f"{alias} {version}", set()).add(model.name)
    return holders


def pin_champion(project: Judged) -> None:
    """champion/ as `champion pull` writes it, without DVC."""
    place = project.root / artifacts.Champion.path

    def instead(path: str, write: Callable[[Path], None], root: Path) -> None:
        shutil.rmtree(root / path)
        write(root / path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinned, "replace_pinned", instead)
        pinned.pull_champion(open_registry(project.root), "canvas-background", artifacts.Champion, project.root)
    assert {entry.name for entry in place.iterdir()} == {artifacts.Champion.facts, "evaluation", "training_statistics"}


def point_at_candidates(judgments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same about pictures that the evaluation holds: the challenger's of each item, and pasted ones."""
    return [
        row
        | {
            side: f"{'challenger' if row[f'{side}_model'] else 'paste'}{int(row['item_id'][1:])}0"
            for side in ("first", "second")
        }
        for row in judgments
    ]


def test_every_registered_model_is_registered() -> None:
    """`register` collects every model that has a registered name."""
    known = {kind for kind in vars(artifacts).values() if isinstance(kind, type) and issubclass(kind, Model)}
    registered = {kind for kind in known if kind.registered is not None}
    assert registered == {kind for kind in load_stage("register").inputs.values() if issubclass(kind, Model)}


def test_candidates_and_champions(project: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    first = project.train("first")
    project.evaluate(first, 0.0)
    project.run("gate", "review", "register", "promote")
    names = set(project.read(artifacts.Registered))
    assert project.read(artifacts.Verdict)["outcome"] == "pending"
    assert project.read(load_stage("gate").outputs["metrics"])["pending"] == 1
    assert "raters" not in project.read(load_stage("gate").outputs["metrics"])
    assert project.read(artifacts.Promoted)["move"] is None
    assert aliases(project) == {"candidate 1": names}
    page = (project.root / artifacts.Review.path).read_text()
    assert "Pending. Challenger" in page
    assert "there is no champion yet" in page

    project.rate(point_at_candidates(make_judgments(first, None, 0.9)))
    project.run("gate", "review", "promote")
    raters = project.read(load_stage("gate").outputs["metrics"])["raters"]
    assert 0.75 < raters["reward_agreement_low"] < raters["reward_agreement"] < 1  # nine tenths
    assert raters["pair_agreement"] == 1.0  # both raters say the same
    assert "The reward model prefers what people prefer in 0." in (project.root / artifacts.Review.path).read_text()
    assert project.read(artifacts.Promoted)["move"]["after"] == "1"
    assert aliases(project) == {"champion 1": names}
    pin_champion(project)

    worse = project.train("worse")
    project.evaluate(worse, -0.1)
    project.rate(make_judgments(worse, first, 0.9))
    project.run("gate", "review", "register", "promote")
    refused = project.read(artifacts.Promoted)
    assert (refused["outcome"], refused["move"]) == ("fail", None)
    assert any(reason.startswith("worse than the champion: reward_overall, 0.") for reason in refused["reasons"])
    assert not any(reason.startswith("worse than the champion: erosion") for reason in refused["reasons"])
    assert aliases(project) == {"champion 1": names, "candidate 2": names}
    page = (project.root / artifacts.Review.path).read_text()
    assert "Fail. Challenger" in page
    assert "train_base.steps" in page[page.index("What changed") :]
    assert main(["promote", "--why", "I like it"]) == 1
    assert "canvas-background version 2 is not promoted: the verdict is fail: " in capsys.readouterr().err

    better = project.train("better")
    project.rate(make_judgments(better, first, 0.9))
    project.evaluate(better, 0.1, changed=1.0)
    project.run("gate")
    touched = project.read(artifacts.Verdict)["reasons"]
    assert touched == ["Core difference (challenger.core_max_abs_diff_worst) is 1: it must be at most 0"]
    project.evaluate(better, 0.1)
    project.run("gate", "review", "register", "promote")
    raters = project.read(load_stage("gate").outputs["metrics"])["raters"]
    assert "pair_agreement" in raters
    assert "reward_agreement" not in raters  # they saw pictures that this evaluation has not
    assert project.read(artifacts.Promoted)["move"]["before"] == "1"
    assert aliases(project) == {"champion 3": names, "previous 1": names}
    assert main(["rollback", "--why", "complaints"]) == 0
    assert aliases(project) == {"champion 1": names}


def test_scores_of_another_reward_promote_nothing(project: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained anew and asked by hand, with the old one still in the candidate."""
    model = project.train("first")
    project.evaluate(model, 0.0)
    project.run("gate", "review", "register")
    project.rate(make_judgments(model, None, 0.9))
    reward, evaluation = (item(kind, project.root) for kind in (artifacts.RewardModel, artifacts.Evaluation))
    other = "e" * 32 + ".dir"
    record(project.root, "evaluate", [reward | {"digest": other}], evaluation)
    says = (
        f"canvas-background version 1 is not promoted: {artifacts.Evaluation.path} was made with canvas-reward "
        f"{other}, but the version that would be champion is {reward['digest']}; "
    )
    assert main(["promote", "--why", "I like it"]) == 1
    assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(says)):
        project.run("promote")
    record(project.root, "evaluate", [reward], evaluation)
    assert main(["promote", "--why", "I like it"]) == 0


@pytest.mark.parametrize("generator", ["backdrop", "base"])
def test_the_review_shows_an_alignment_that_is_part_of_the_challenger(project: Judged, generator: str) -> None:
    challenger = project.train("aligned")
    (project.root / artifacts.AlignedLora.path / EVIDENCE_FILE).write_text(json.dumps({"generator": generator}))
    project.evaluate(challenger, 0.1)
    project.run("gate", "review")
    page = (project.root / artifacts.Review.path).read_text()
    assert ("The alignment with rewards" in page) == (generator == "backdrop")


@pytest.mark.parametrize("failed", [None, 0.0, 1.0])
def test_gate_asks_for_certificates_where_the_model_has_a_mode_soft(project: Judged, failed: float | None) -> None:
    """One failing certificate among the items refuses it, and so do certificates that nobody verified."""
    light = project.root / artifacts.CanvasModel.path / LIGHT_FOLDER
    light.mkdir(parents=True)
    (light / "config.json").write_text("{}")
    model = project.train("first")
    project.evaluate(model, 0.0, failed=failed)
    project.rate(make_judgments(model, None, 0.9))
    project.run("gate", "review")
    verdict = project.read(artifacts.Verdict)
    page = (project.root / artifacts.Review.path).read_text()
    if failed == 0:
        assert verdict["outcome"] == "pass"
        assert "certificates_failed" in page
    else:
        named = "Certificates failed (challenger.certificates_failed)"
        value = "was not measured" if failed is None else "is 0.025"
        assert verdict["reasons"] == [f"{named} {value}: it must be at most 0"]
        assert f"{named} {value}" in page


@pytest.mark.parametrize("has_reward", [True, False])
def test_gate_and_promotion_ask_for_rewards_where_the_model_has_a_reward_model(
    project: Judged, has_reward: bool
) -> None:
    """The evaluation holds no reward: of a model that has a reward model that is a fault, else nobody asks."""
    if has_reward:
        (project.root / artifacts.CanvasModel.path / REWARD_FOLDER).mkdir(parents=True)
        (project.root / artifacts.CanvasModel.path / REWARD_FOLDER / "config.json").write_text("{}")
    model = project.train("first")
    project.evaluate(model, 0.0)
    rows = [row | {"reward_overall": None} for row in read(project.root / artifacts.Evaluation.path).to_pylist()]
    project.write(artifacts.Evaluation, rows, EVALUATION)
    project.rate(make_judgments(model, None, 0.9))
    project.run("gate", "review", "register", "promote")
    verdict, promoted = project.read(artifacts.Verdict), project.read(artifacts.Promoted)
    assert (promoted["outcome"], promoted["reasons"]) == (verdict["outcome"], verdict["reasons"])
    if has_reward:
        assert (verdict["outcome"], promoted["move"]) == ("fail", None)
        assert verdict["reasons"][0] == "reward_overall was not measured: it is guarded"
    else:
        assert (verdict["outcome"], promoted["move"]["after"]) == ("pass", "1")
        assert verdict["reasons"][-1].startswith("there is no reward model: ")
