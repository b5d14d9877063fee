"""Figures of slices, and sheets of them, from images of tiny real models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from canvas.denoiser.spec import PassSpec
from canvas.pins.fallbacks import Notes
from evaluation.judges.judges import Judges, fit_scene_judges
from evaluation.scenes.families import NO_UPSCALER, build_families
from evaluation.scenes.generation import Images, generate_families
from evaluation.scenes.products import ProductCounter
from evaluation.scenes.scores import compute_totals, measure_scene_accuracy, measure_slices
from evaluation.scenes.sheets import CELL, draw_notice, draw_sheets
from evaluation.scenes.subjects import Subjects
from tests.canvas.inference.conftest import small_uve
from tests.evaluation.scenes.conftest import SPEC

COLOURS = {"forest": (20, 90, 30), "lobby": (150, 130, 120)}


@pytest.fixture
def images(subjects: Subjects) -> Images:
    sampling = subjects.pipeline.recommended_sampling.build_spec(PassSpec(batch_size=4, precision="fp32"))
    return generate_families(subjects.pipeline, build_families(subjects, SPEC, 32, Notes()), sampling)


@pytest.fixture(scope="module")
def judges() -> Judges:
    """Judges that tell two plain colours apart."""
    draw = np.random.default_rng(0)
    views = [np.clip(draw.normal(colour, 9, (6, 64, 64, 3)), 0, 255).astype(np.uint8) for colour in COLOURS.values()]
    both = fit_scene_judges(np.concatenate(views), [scene for scene in COLOURS for _ in range(6)], 0)
    return Judges(list(COLOURS), both)


@pytest.fixture
def counter(subjects: Subjects, tmp_path: Path) -> ProductCounter:
    small_uve().save_pretrained(tmp_path / "uve")
    return ProductCounter.load(tmp_path / "uve", subjects, subjects.pins)


def test_each_slice_has_the_figures_of_its_family(images: Images, judges: Judges, counter: ProductCounter) -> None:
    figures = measure_slices(images, judges, 64, counter, notes := Notes())
    assert {name: list(slices) for name, slices in figures.items()} == {
        "mode": ["hard", "soft", "shadow", "soft_shadow", "reflection"],
        "size": ["cubic", "2x", "4x"],
        "format": ["square", "banner"],
        "products": ["1", "2", "3"],
    }
    every = {f"{name}.{key}": values for name, slices in figures.items() for key, values in slices.items()}
    for name, values in every.items():
        assert 0 <= values["scene_right_low"] <= values["scene_right"] <= values["scene_right_high"] <= 1
        exact = "soft" not in name
        assert values.get("core_max_abs_diff") == (0 if exact else None)
        assert values.get("certificates_failed") == (None if exact else 0.0)
        assert ("omitted" in values) == name.startswith("products.")
    assert every["mode.hard"]["n"] == 4
    assert every["size.4x"]["n"] == 1
    assert notes.to_metrics() == {}
    totals = compute_totals(figures)
    given = 2 * every["products.2"]["n"] + 3 * every["products.3"]["n"]
    assert totals["omitted"] == (every["products.2"]["omitted"] + every["products.3"]["omitted"]) / given
    assert compute_totals({"products": {"1": every["products.1"]}}) == {}


def test_faults_and_changed_cores_are_told(images: Images, judges: Judges, counter: ProductCounter) -> None:
    soft = [replace(images["mode"]["soft"][0], pixels=None, fault="law slope is broken"), *images["mode"]["soft"][1:]]
    hard = [*images["mode"]["hard"][:-1], replace(images["mode"]["hard"][-1], core_difference=3)]
    figures = measure_slices({"mode": {"hard": hard, "soft": soft}}, judges, 64, counter, notes := Notes())["mode"]
    assert figures["hard"]["core_max_abs_diff"] == 3
    assert figures["soft"]["certificates_failed"] == 1 / 4
    assert figures["soft"]["n"] == 4
    assert notes.to_metrics() == {"notes": ["in mode soft a certificate does not hold: law slope is broken"]}


def test_the_prompted_scene_is_asked_for(images: Images, judges: Judges) -> None:
    """Images of one colour each: right where the prompt names it."""
    plain = [
        replace(image, pixels=np.full((64, 64, 3), COLOURS["forest"], np.uint8)) for image in images["mode"]["hard"]
    ]
    assert measure_scene_accuracy(plain, judges, 64)["scene_right"] == 0.5  # backgrounds in turn
    forests = [image for image in plain if "forest" in image.request.background]
    assert measure_scene_accuracy(forests, judges, 64)["scene_right"] == 1.0
    assert measure_scene_accuracy(plain, Judges((), None), 64) == {}


def test_a_sheet_has_a_row_a_product_and_a_column_a_slice(images: Images) -> None:
    sheets = draw_sheets(images, 2)
    columns = {name: round(sheet.width / CELL) for name, sheet in sheets.items()}
    rows = {name: round(sheet.height / (CELL + 22)) for name, sheet in sheets.items()}
    assert columns == {"mode": 6, "size": 4, "format": 3, "products": 4}
    assert rows == {"mode": 2, "size": 1, "format": 2, "products": 2}
    lost = {"mode": {"soft": [replace(image, pixels=None) for image in images["mode"]["soft"]]}}
    assert np.asarray(draw_sheets(lost, 1)["mode"])[20:180, -180:-20].min() == 255


def test_a_family_without_images_is_a_sentence(images: Images) -> None:
    notice = draw_sheets({"size": {}}, 2)["size"]
    assert notice.size == draw_notice(NO_UPSCALER).size
    assert 10 < np.asarray(notice).min() < 100
    assert notice.height < 60
