"""`python -m bench.text` at tiny size: three arms are tuned, encoded, trained and judged; page, figures, sheet come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from bench.text.__main__ import main
from bench.text.scores import average_hits, compare_hits
from tests.components.generator_parts import write_generator_inputs
from tests.components.generator_stages import run
from tests.components.test_train_text import share_boards


def test_three_arms_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    root.mkdir()
    write_generator_inputs(root)
    share_boards(root)
    run("train_judges", root)
    options = ["--seconds", "0.05", "--seeds", "3", "--products", "2", "--profile", "tiny"]
    assert main([*options, "--root", str(root), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "text.json").read_text())
    names = ["frozen", "tuned", "tuned with neighbours"]
    assert [row["name"] for row in report["denoisers"]] == names == list(report["encoders"])
    measures = list(report["encoders"]["frozen"])
    assert measures == [
        *(f"text to image, second, {width} numbers" for width in (16, 8, 4)),
        "probe, scene",
    ]  # no pin of the catalogue names its product
    for of_arm in report["encoders"].values():
        assert all(0 <= low <= mean <= high <= 1 for mean, low, high in of_arm.values())
    assert report["encoders"]["frozen"] != report["encoders"]["tuned"]
    assert list(report["differences"]) == ["tuned over frozen", "tuned with neighbours over tuned"]
    assert {*measures, "scene", "sharp", "erosion"} <= report["differences"]["tuned over frozen"].keys()
    page = (tmp_path / "out" / "text.md").read_text()
    assert page.count("| tuned with neighbours |") == 2
    assert "2 held-out products, 2 prompts, seeds 3." in page
    assert page in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "text.png") as sheet:
        assert sheet.width == 3 * 156 + 6


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "artifacts/pins, " in (message := capsys.readouterr().err)
    assert message.endswith("models/judges missing: run `make demo` first\n")
    assert not (tmp_path / "out").exists()


def test_products_are_what_is_resampled() -> None:
    """Forty texts of two products, one always found, one never: an interval over texts would be narrow."""
    hits = {text: (float(text % 2), f"product {text % 2}") for text in range(40)}
    interval = average_hits(hits)
    assert interval.mean == 0.5
    assert (interval.low, interval.high) == (0, 1)
    gain = compare_hits(hits | {99: (1.0, "other")}, {text: (0.0, product) for text, (_, product) in hits.items()})
    assert gain.mean == 0.5
