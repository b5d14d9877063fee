"""A ruined model is refused with the reason named: real tiny models, real stages, a real registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canvas.pins import tables
from canvas.pins.images import decode_image
from canvas.pins.masks import decode_mask
from canvas.reward.model import load_reward
from canvas.segmenter.model import load_segmenter
from canvas.segmenter.spec import EdgeSpec
from components import artifacts
from components.evaluate import evaluate
from lifecycle.__main__ import main
from lifecycle.declare.params import load_sections
from tests.components.generator_parts import write_towers
from tests.components.generator_stages import run as run_stage
from tests.components.judged import ROOT, Judged, empty
from tests.components.mugs import tiny, write_catalogue
from tests.components.sidecars import write_sidecars
from tests.components.test_evaluate import candidates, measure
from tests.evaluation.test_gates import make_judgments
from tests.lifecycle.registering import open_registry

REAL = (artifacts.Clip, artifacts.Segmenter, artifacts.RewardModel)
DEMO = load_sections("demo", ROOT)["gate"]
GATE = {"floors": DEMO["floors"] | {"challenger.reward_overall": None}, "guarded": ["scene_right", "extension"]}
"""The demo's own floors."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalogue, judges, and the models that score, each trained until it works."""
    root = tmp_path_factory.mktemp("trained")
    tables_at = root / "artifacts"
    tables_at.mkdir()
    write_catalogue(tables_at)
    write_sidecars(tables_at)
    measure(tables_at)
    write_towers(root / "models" / "clip", tiny(evaluate)["text"])
    artifacts.Preferences.write_empty(root / "preferences")
    run_stage("train_judges", root)
    run_stage("train_segmenter", root, train={"steps": 80})
    run_stage("train_reward", root, comparisons=600, train={"steps": 150, "learning_rate": 0.005})
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return empty(tmp_path)


def judge(project: Judged, *, permuted: bool = False) -> str:
    """Evaluate what the challenger painted, and decide; return the challenger. `permuted`: each image is the one of
    the other prompt, as by a denoiser whose labels were shuffled."""
    challenger = project.train("challenger", real=REAL)
    rows = [row for row in candidates(project.root / "artifacts") if row["model"] != "champion"]
    if permuted:
        other = {(row["pin_id"], row["scene"], row["seed"], row["model"]): row["image"] for row in rows}
        scenes = sorted({row["scene"] for row in rows})
        for row in rows:
            scene = scenes[1 - scenes.index(row["scene"])]
            row["image"] = other[row["pin_id"], scene, row["seed"], row["model"]]
    for row in rows:
        row["digest"] = challenger if row["model"] == "challenger" else None
    place = project.root / artifacts.Candidates.path
    tables.write_rows(place, rows, tables.CANDIDATES)
    project.rate(make_judgments(challenger, None, 0.9))
    project.run("evaluate", "gate", changes={"gate": GATE})
    return challenger


def try_promotion(project: Judged) -> None:
    """Register the challenger with its verdict, and let the stage `promote` decide."""
    project.run("review", "register", "promote", changes={"gate": GATE})


def champions(project: Judged) -> int:
    """Models of the registry that have a champion."""
    models = open_registry(project.root).versions.client.search_registered_models()
    return sum("champion" in model.aliases for model in models)


def test_a_sound_model_is_promoted(project: Judged) -> None:
    judge(project)
    try_promotion(project)
    verdict = project.read(artifacts.Verdict)
    assert verdict["outcome"] == "pass", verdict["reasons"]
    assert any("by the challenger's own segmenter: evaluate.references.segmenter" in why for why in verdict["reasons"])
    assert champions(project) > 10


def cut_products(project: Judged) -> None:
    """A segmenter that finds a tenth less of every product: its last layer asks for more."""
    path = project.root / artifacts.Segmenter.path
    pins = tables.read_column(project.root / "artifacts" / "masks", "mask", set(PINS))
    truth = {pin: decode_mask(mask) for pin, mask in pins.items()}
    images = tables.read_column(project.root / "artifacts" / "pins", "image", set(PINS))
    segmenter = load_segmenter(path)
    lost = 0.0
    while lost < 0.1:
        with torch.no_grad():
            segmenter.network.head.bias -= 0.5
        alphas = segmenter.predict_alphas([decode_image(images[pin]) for pin in PINS], EDGES)
        pairs = [(truth[pin], alpha < 0.5) for pin, alpha in zip(PINS, alphas, strict=True)]
        lost = float(np.mean([(product & outside).sum() / product.sum() for product, outside in pairs]))
    assert lost < 0.6
    shutil.rmtree(path)
    segmenter.save(path)


PINS = ("p13", "p14", "p16")
"""Held-out products."""

EDGES = EdgeSpec(radius=4, epsilon=0.001)


def flatten_reward(project: Judged) -> None:
    """A reward model that says the same of every image."""
    path = project.root / artifacts.RewardModel.path
    network = load_reward(path)
    torch.nn.init.zeros_(network.answers[-1].weight)
    torch.nn.init.zeros_(network.agreement)
    shutil.rmtree(path)
    network.save_pretrained(path)


@pytest.mark.parametrize(
    ("ruin", "reason"),
    [
        (cut_products, "instruments.segmenter.iou is 0."),
        (flatten_reward, "instruments.reward.overall_accuracy is 0.5: it must be at least 0.9"),
    ],
    ids=["segmenter cuts", "reward constant"],
)
def test_a_ruined_model_fails(project: Judged, ruin: Callable[[Judged], None], reason: str) -> None:
    ruin(project)
    judge(project)
    _assert_failed(project, reason)


def test_a_model_that_failed_is_not_promoted(project: Judged, capsys: pytest.CaptureFixture[str]) -> None:
    """As a denoiser whose labels were shuffled."""
    reason = "challenger.scene_right is 0: it must be at least 0.65"
    judge(project, permuted=True)
    try_promotion(project)
    _assert_failed(project, reason)
    assert champions(project) == 0
    assert main(["promote", "--why", "I like it"]) == 1
    assert reason in capsys.readouterr().err


def _assert_failed(project: Judged, reason: str) -> None:
    """The verdict is fail, for this reason alone."""
    verdict: dict[str, Any] = project.read(artifacts.Verdict)
    assert verdict["outcome"] == "fail"
    assert [why for why in verdict["reasons"] if why.startswith(reason)] == verdict["reasons"]
