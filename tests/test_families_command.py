"""`python -m bench.families` at tiny size: both families train and are judged alike; page, figures and sheet come."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bench.families.__main__ import main
from bench.families.judging import Verdict, compare_verdicts, summarize_verdicts
from bench.families.training import match_parameters, shorten_training
from canvas.denoiser.spec import DenoiserSpec
from evaluation.generator.background_scores import BackgroundScore
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections
from tests.canvas import tiny
from tests.components.generator_parts import write_generator_inputs
from tests.components.generator_stages import ROOT, run


def test_both_families_are_trained_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    root.mkdir()
    write_generator_inputs(root, hole_channels=8**2)  # a number for each pixel of a cell, which transformers read
    run("train_judges", root)
    options = ["--seconds", "0.05", "--seeds", "3", "--products", "2", "--profile", "tiny"]
    options += ["--recipes", str(ROOT / "bench/families/recipes/muon.yaml")]
    assert main([*options, "--root", str(root), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "families.json").read_text())
    unet, dit, equal, _ = report["contestants"]
    names = [row["name"] for row in report["contestants"]]
    assert names == ["unet", "dit", "dit, parameters of unet", "muon"]
    assert abs(equal["parameters"] - unet["parameters"]) <= abs(dit["parameters"] - unet["parameters"])
    assert len(report["runs"]) == 4
    for row in report["contestants"]:
        assert row["figures"]["steps"] >= 1
        assert row["figures"]["held_out_loss"] > 0
        mean, low, high = row["summary"]["kid"]
        assert low < mean < high
    page = (tmp_path / "out" / "families.md").read_text()
    assert page.count("| unet |") == 2
    assert "2 held-out products, 2 prompts, seeds 3." in page
    assert "- muon over dit: scene " in page
    assert page in capsys.readouterr().out
    sheet = Image.open(tmp_path / "out" / "families.png")
    assert sheet.width == 3 * 156 + 6


@pytest.mark.parametrize("file", sorted((ROOT / "bench/families/recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipe_fits_the_transformer_of_the_demo(file: Path) -> None:
    own = load_sections("demo", ROOT)
    sections = merge_sections(own, read_sections(file))
    assert sections != own
    for stage in ("encode", "train_base", "train_inpaint"):
        read_stage_params(load_stage(stage), sections)


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "artifacts/pins, " in (message := capsys.readouterr().err)
    assert message.endswith("models/judges missing: run `make demo` first\n")
    assert not (tmp_path / "out").exists()


def test_parameters_are_matched_by_single_blocks() -> None:
    def count(spec: DenoiserSpec) -> int:
        assert spec.dit is not None
        return 1000 + 70 * spec.dit.single_blocks

    for target, blocks in ((0, 0), (1000, 0), (1036, 1), (1700, 10), (10**9, 63)):
        matched = match_parameters(tiny.TRANSFORMER, target, count)
        assert matched == replace(tiny.TRANSFORMER, dit=replace(tiny.DIT, single_blocks=blocks))


def test_a_training_has_exactly_the_steps_that_fit() -> None:
    params = read_stage_params(load_stage("train_inpaint"), load_sections("demo", ROOT))
    for steps in (1, 7, 397, 4000):
        spec = params["training"].resolve(shorten_training(params["train_inpaint"], steps).train)
        assert spec.steps == spec.checkpoint_every == steps
        assert spec.warmup_steps == round(steps / 5)


def build_verdict(seed: int, hits: list[bool], kid: float) -> Verdict:
    scores = [
        BackgroundScore(
            product=f"p{place % 3}",
            scene="forest",
            seen="forest" if hit else "lobby",
            seen_sharp="lobby",
            extension=0.0,
            erosion=0.1 * place,
            seam=None,
            core_difference=0,
        )
        for place, hit in enumerate(hits)
    ]
    return Verdict(seed, scores, kid, 0.01)


def test_verdicts_become_intervals_over_products_and_seeds() -> None:
    weak = [build_verdict(0, [True, False, False], 0.10), build_verdict(1, [False, True, False], 0.12)]
    strong = [build_verdict(0, [True, True, True], 0.05), build_verdict(1, [True, True, False], 0.05)]
    summary = summarize_verdicts(weak)
    assert summary["scene"].mean == pytest.approx(1 / 3)
    assert summary["scene"].low < 1 / 3 < summary["scene"].high
    assert summary["sharp"].mean == summary["sharp"].high == 0
    assert summary["kid"].mean == pytest.approx(0.11)
    assert summary["kid"].high - summary["kid"].mean == pytest.approx(1.96 * 0.01 / 2**0.5)
    gains = compare_verdicts(strong, weak)
    assert gains["scene"].mean == pytest.approx(1 / 2)
    assert gains["erosion"].mean == gains["erosion"].low == 0
