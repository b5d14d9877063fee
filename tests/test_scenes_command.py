"""`python -m bench.scenes` on the smallest real parts: every part runs and says what it measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.scenes import __main__ as command
from bench.scenes.outpainting import choose_hidden_part, measure_banners, measure_outpainting, mirror_hidden
from bench.scenes.products import measure_products
from canvas.pins import tables
from canvas.pins.products import ProductPin
from evaluation.scenes.subjects import Subjects
from tests.canvas.inference.conftest import pipeline, segmenting_pipeline, small_uve  # noqa: F401
from tests.evaluation.scenes.conftest import build_pin, subjects  # noqa: F401


def test_a_part_that_shows_least_of_the_product_is_hidden() -> None:
    pin = build_pin(0)
    mask = np.zeros_like(pin.mask)
    mask[:, :20] = True
    part = choose_hidden_part(ProductPin("p", pin.image, mask, "mug"), 0.25)
    assert part.place == "keep-left"
    assert part.hidden == (48, 0, 64, 64)
    mirrored = mirror_hidden(pin.image, part)
    assert mirrored.shape == (64, 64, 3)
    assert np.array_equal(mirrored[:, :48], np.asarray(pin.image)[:, :48])


def test_outpainting_and_banners_are_measured_beside_real_images(subjects: Subjects) -> None:  # noqa: F811
    figures = measure_outpainting(subjects, 4)
    assert figures["pins"] == 4
    assert set(figures["border_gradient_ratio"]) == {"generated", "real", "mirrored"}
    assert np.isfinite(figures["kid"]["generated"]).all()
    banners = measure_banners(subjects, 2)
    assert banners["banners"] == 2
    assert banners["windows"] > 1


def test_scenes_are_counted(subjects: Subjects, tmp_path: Path) -> None:  # noqa: F811
    small_uve().save_pretrained(tmp_path / "models" / "uve")
    tables.write_rows(tmp_path / "artifacts" / "truth", [], tables.TRUTH)
    figures = measure_products(subjects, tmp_path, 2)
    assert figures["core_max_abs_diff"] == 0
    assert figures["generated"]["scenes"] == 2
    assert "on real scenes" not in figures  # truth knows none


def test_without_a_full_run_it_says_what_is_missing(tmp_path: Path, capsys) -> None:
    assert command.main(["--root", str(tmp_path)]) == 1
    assert "needs models/canvas, models/uve, artifacts/pins, artifacts/truth" in capsys.readouterr().err
