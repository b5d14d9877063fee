from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from canvas.pins.images import decode_image
from canvas.sources.showroom.camera import CameraView, compute_yaw_reach
from canvas.sources.showroom.engagement import compute_fit, sample_engagement
from canvas.sources.showroom.plan import plan_pins
from canvas.sources.showroom.products import Product
from canvas.sources.showroom.render import Showroom, load_showroom, render_pins
from canvas.sources.showroom.spec import DEFECTS, SCENES, SECTOR, ShowroomSpec

SPEC = ShowroomSpec(
    pins=90, on_white=0.12, scene_only=0.12, unseen_product=0.1, unseen_view=0.14, unseen_both=0.1, defective=0.2
)


@pytest.fixture(scope="module")
def showroom(showroom_files: Path) -> Showroom:
    return load_showroom(showroom_files, SPEC, 3)


@pytest.fixture(scope="module")
def rows(showroom: Showroom) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [
        pair for batch in render_pins(showroom, 2) for pair in zip(*(table.to_pylist() for table in batch), strict=True)
    ]


Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


def test_threads_and_order_do_not_change_a_byte(showroom: Showroom, rows: Pairs) -> None:
    again = [row for pins, _ in render_pins(showroom, 1) for row in pins.to_pylist()]
    assert again == [pin for pin, _ in rows]


def test_pins_and_truth_agree(rows: Pairs) -> None:
    assert len({pin["pin_id"] for pin, _ in rows}) == 90
    for pin, truth in rows:
        assert pin["pin_id"] == truth["pin_id"]
        assert (pin["product_id"] is None) == (truth["kind"] == "scene")
        assert (truth["scene"] is None) == (truth["kind"] == "on_white")
        assert pin["saves"] <= pin["impressions"]
        assert not (pin["promoted"] and pin["product_id"] is None)
        if truth["defect"] == "broken_bytes":
            with pytest.raises(ValueError, match=r"."):
                decode_image(pin["image"])
            continue
        assert decode_image(pin["image"]).size == (pin["width"], pin["height"])
        if truth["kind"] != "scene":
            alpha = np.asarray(decode_image(truth["alpha"]).convert("L"))
            assert alpha.shape == (pin["height"], pin["width"])
            x0, y0, x1, y1 = truth["box"]
            outside = alpha.copy()
            outside[y0:y1, x0:x1] = 0
            assert outside.max() <= 127 < alpha[y0:y1, x0:x1].max()


def test_outside_product_and_shadow_the_background_shows(rows: Pairs) -> None:
    """Away from the product the pin is the picture before it came in; under it, it is not."""
    for pin, truth in rows:
        if truth["kind"] == "in_scene" and truth["defect"] in (None, "empty_text"):
            image = np.asarray(decode_image(pin["image"])).astype(int)
            before = np.asarray(decode_image(truth["background"])).astype(int)
            alpha = np.asarray(decode_image(truth["alpha"]).convert("L"))
            difference = np.abs(image - before).mean(-1)
            top = np.zeros(alpha.shape, dtype=bool)
            top[: max(0, truth["box"][1] - 24)] = True  # neither shadow nor JPEG ringing
            assert difference[top].max(initial=0) < 12
            assert difference[alpha > 250].mean() > 8


def test_train_sees_no_pixel_of_a_held_out_sector(rows: Pairs) -> None:
    """And the unseen views see nothing else."""
    centers = {scene.words: scene.held_out_yaw for scene in SCENES}
    checked = set()
    for pin, truth in rows:
        if truth["scene"] is None:
            continue
        distance = abs((truth["yaw"] - centers[truth["scene"]] + 180) % 360 - 180)
        unspoilt = truth["defect"] not in ("broken_bytes", "tiny", "near_duplicate")  # whose size is another
        if unspoilt:
            reach = compute_yaw_reach(CameraView(0, truth["pitch"], truth["fov"], pin["width"], pin["height"]))
            if pin["split"] in ("train", "unseen_product"):
                assert distance - reach >= SECTOR / 2 - 1e-3
            else:
                assert distance + reach <= SECTOR / 2 + 1e-3
            checked.add(pin["split"])
    assert checked == {"train", "unseen_product", "unseen_view", "unseen_both"}


def test_defects_are_there(rows: Pairs) -> None:
    def luma(pin: dict[str, Any]) -> np.ndarray:
        return np.asarray(decode_image(pin["image"]).convert("L")).astype(np.float32)

    by_id = {pin["pin_id"]: pin for pin, _ in rows}
    sound = [cv2.Laplacian(luma(pin), cv2.CV_32F).var() for pin, truth in rows if truth["defect"] is None]
    defects = set()
    for pin, truth in rows:
        defect = truth["defect"]
        if defect == "blurred":
            assert cv2.Laplacian(luma(pin), cv2.CV_32F).var() < min(sound)
        elif defect == "tiny":
            assert 32 <= min(pin["width"], pin["height"]) <= 72
        elif defect == "overexposed":
            assert luma(pin).mean() > 0.85 * 255
        elif defect == "underexposed":
            assert luma(pin).mean() < 0.06 * 255
        elif defect == "near_duplicate":
            original = by_id[truth["copy_of"]]
            assert original["image"] != pin["image"]
            small = [cv2.resize(luma(one), (32, 32), interpolation=cv2.INTER_AREA) for one in (pin, original)]
            assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.8
        elif defect == "empty_text":
            assert not (pin["title"] + pin["description"] + pin["alt_text"]).strip()
        elif defect == "unrelated_text":
            assert truth["scene"] is None or truth["scene"] not in pin["title"] + pin["description"]
        if defect != "empty_text":
            assert pin["title"]
            assert pin["alt_text"]
        defects.add(defect)
    assert defects == {None, *DEFECTS}


def test_another_seed_gives_other_pins(showroom: Showroom, products: tuple[Product, ...], rows: Pairs) -> None:
    other = replace(showroom, seed=4, plans=plan_pins(SPEC, 4, products))
    first = next(iter(render_pins(other, 1)))[0].to_pylist()
    assert {pin["image"] for pin in first}.isdisjoint(pin["image"] for pin, _ in rows if len(pin["image"]) > 500)


def test_people_save_what_fits() -> None:
    rng = np.random.default_rng(0)

    def rate(category: str, scene: str, defect: str | None) -> float:
        figures = [sample_engagement(category, scene, defect, rng) for _ in range(300)]
        return sum(figure.saves for figure in figures) / sum(figure.impressions for figure in figures)

    good, bad = rate("Paints", "apartment", None), rate("Paints", "savanna at night", None)
    assert good > 2 * bad
    assert rate("Paints", "apartment", "blurred") < 0.6 * good
    assert compute_fit("Paints", "apartment") > compute_fit("Paints", None) > compute_fit("Paints", "forest")
