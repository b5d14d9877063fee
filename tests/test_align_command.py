"""`python -m bench.align` at tiny size: arms start from one generator, and page, figures, curves and sheet come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.align.__main__ import main
from bench.align.arms import ARMS, TRAIN, UNGUARDED_LENGTH, build_sections
from bench.align.judging import ProductResampler, to_interval
from components.align import align
from evaluation.measures.distances import kernel_distance
from lifecycle.declare.params import load_sections, read_stage_params
from tests.components.mugs import ROOT
from tests.components.test_align import INPUTS, write_inputs


@pytest.mark.parametrize("arm", list(ARMS))
def test_arms_are_valid_in_the_demo(arm: str) -> None:
    params = read_stage_params(align, build_sections(arm, 3, load_sections(root=ROOT), {"train": dict(TRAIN)}))
    assert params["training"].seed == 3
    assert params["align"].train.steps == TRAIN["steps"] * (UNGUARDED_LENGTH if arm == "unguarded" else 1)


def test_arms_are_compared_with_the_generator_that_they_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path / "inputs", "unet")
    for name in INPUTS:
        place = tmp_path / "run" / align.inputs[name].path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(tmp_path / "inputs" / name)
    options = ["--profile", "tiny", "--arms", "nft", "nft-diverse", "--seeds", "4", "5", "--steps", "4"]
    options += ["--checks", "2", "--prompts", "2", "--check-prompts", "2"]
    options += ["--root", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main(options) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "alignments.json").read_text())
    assert [(row["arm"], row["seed"]) for row in report["runs"]] == [
        *(("nft", 4), ("nft-diverse", 4), ("unguarded", 4)),
        *(("nft", 5), ("nft-diverse", 5)),
    ]
    first, other, hacked, *_ = report["runs"]
    assert first["checks"][0] == other["checks"][0]  # one start, judged once, by the rewards of all arms
    assert set(first["checks"][0]["rewards"]) == {"prompt", "overall", "diversity"}
    assert [check["step"] for check in hacked["checks"]] == [0, 6, 12]
    assert all(row["core_difference"] == 0 for row in report["runs"])
    changes = report["arms"]["nft"]["changes"]
    assert set(changes) == {"gold", "scene", "sharp", "growth", "kid", "diversity"}
    gains = [row["gold_gain"] for row in report["runs"] if row["arm"] == "nft"]
    assert changes["gold"][0] == pytest.approx(np.mean(gains))
    page = (tmp_path / "out" / "alignments.md").read_text()
    assert page in capsys.readouterr().out
    assert "| start | " in page
    assert "4 images of 2 held-out prompts" in page
    for name in ("curves", "before-after"):
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.width > 200


def test_without_a_finished_run_there_is_nothing_to_align(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "models/reward" in capsys.readouterr().err


def test_resampled_figures_are_those_of_the_sample_and_products_are_drawn_together() -> None:
    draw = np.random.default_rng(0)
    products = [f"mug {number // 8}" for number in range(80)]
    single, shared = draw.normal(size=80), np.repeat(draw.normal(size=10), 8)
    resampler = ProductResampler.draw(products)
    with_gap = single.copy()
    with_gap[3] = np.nan
    assert resampler.compute_mean(np.stack([single, with_gap]))[0] == pytest.approx(np.nanmean([single, with_gap]))
    narrow, wide = (to_interval(resampler.compute_mean(values[None])) for values in (single, shared))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    real, sets = draw.normal(size=(30, 16)).astype(np.float32), draw.normal(size=(2, 80, 16)).astype(np.float32)
    distances = resampler.compute_kernel_distance(real, list(sets))
    assert distances[0] == pytest.approx(np.mean([kernel_distance(real, one) for one in sets]))
    interval = to_interval(distances)
    assert interval.low < interval.mean < interval.high
