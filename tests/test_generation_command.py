"""`python -m bench.generation` at tiny size: our transformer and diffusers' own pipeline generate the same, both are
timed and judged, and each setting alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.families.judging import Jury
from bench.families.training import Sources
from bench.generation import transformer
from bench.generation.__main__ import main
from bench.generation.stock import StockGenerator
from canvas.denoiser.spec import ReuseSpec
from lifecycle.declare.params import load_sections
from tests.components.generator_parts import write_generator_inputs
from tests.components.generator_stages import ROOT, run
from tests.components.test_dit_stages import CELL, OVERLAY

STAGES = (
    "train_judges",
    "train_base",
    "train_inpaint",
    "train_backdrop",
    "tune_engaged",
    "train_ip_adapter",
    "assemble",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished run leaves, with a transformer of profile tiny."""
    path = tmp_path_factory.mktemp("generation")
    write_generator_inputs(path, hole_channels=CELL**2)
    for name in STAGES:
        run(name, path, overlay=OVERLAY)
    return path


def test_both_sides_are_timed_and_judged(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--profile", "tiny", "--rounds", "1", "--seeds", "3", "--products", "2", "--precision", "fp32"]
    options += [
        "--settings",
        "guidance of every other step",
        transformer.RECOMMENDED,
        "--root",
        str(root),
        "--out",
        str(tmp_path),
    ]
    assert main(options) == 0, capsys.readouterr().err
    figures = json.loads((tmp_path / "generation.json").read_text())
    judged = {transformer.OURS, "guidance of every other step", transformer.RECOMMENDED, transformer.STOCK}
    assert set(figures["quality"]) == judged
    assert set(figures["differences_from_ours"]) == judged - {transformer.OURS}
    assert set(figures["seconds"]) > {*judged, transformer.EQUAL}
    assert all(len(values) == 1 and values[0] > 0 for values in figures["seconds"].values())
    assert figures["images"] == 4
    mean, low, high = figures["quality"][transformer.STOCK]["kid"]
    assert low < mean < high
    page = (tmp_path / "generation.md").read_text()
    assert page in capsys.readouterr().out
    assert "| diffusers, all steps guided | " in page
    assert "- guidance of every other step over ours: scene " in page


def test_diffusers_generates_what_we_do(root: Path, tmp_path: Path) -> None:
    """At as many calls, from the same noise, by the autoencoder's own decoder."""
    pipeline = transformer.load_generator(root, "fp32")
    jury = Jury.read(load_sections("tiny", ROOT), 1, Sources(root, tmp_path))
    stock = StockGenerator(pipeline, torch.float32)
    for stop in (0.0, 0.5, 1.0):
        with transformer.use_sampling(pipeline, transformer.PLAIN | {"guidance_stop": stop, "steps": 4}):
            assert transformer.measure_difference(pipeline, stock, jury) < 0.05  # of 255 levels
    assert pipeline.recommended_sampling.steps == 2
    request = jury.list_requests(pipeline, 0)[0]
    images = [
        np.asarray(
            stock.generate(
                request.product,
                str(request.prompt),
                seed=0,
                candidates=2,
                sampling=pipeline.recommended_sampling,
                guidance_stop=stop,
            )[1],
            int,
        )
        for stop in (0.0, 1.0)
    ]
    assert np.abs(images[0] - images[1]).max() > 0


@pytest.mark.parametrize("changes", transformer.SETTINGS.values(), ids=list(transformer.SETTINGS))
def test_settings_are_ones_that_a_transformer_takes(root: Path, changes: dict[str, object]) -> None:
    pipeline = transformer.load_generator(root, "fp32")
    with transformer.use_sampling(pipeline, changes) as sampling:
        pipeline.get_scheduler()
        assert sampling.reuse is None or isinstance(sampling.reuse, ReuseSpec)
        assert pipeline.recommended_sampling == sampling
    assert pipeline.recommended_sampling.reuse is None


def test_what_is_missing_or_unknown_is_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "models/canvas, models/judges missing: run `make demo` first" in capsys.readouterr().err
    options = ["--profile", "tiny", "--settings", "7 steps", "--root", str(root), "--out", str(tmp_path / "out")]
    assert main(options) == 1
    assert "bench.generation: no setting is called 7 steps: there are ours, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
