from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.light.gain import apply_gain
from canvas.light.training import LightObjective, iterate_lit_pins, mirror_batch, remove_gain, stack_pins
from canvas.pins import tables
from canvas.pins.tables import read_column
from canvas.sources.showroom.render import write_showroom
from canvas.sources.showroom.spec import ShowroomSpec
from canvas.train.draws import Draws
from tests.canvas.light.subject import build_background, build_slope
from tests.canvas.light.test_model import build_moved

SMALL = ShowroomSpec(
    pins=40, on_white=0.1, scene_only=0.1, unseen_product=0.1, unseen_view=0.1, unseen_both=0.1, defective=0.2
)


@pytest.fixture(scope="module")
def folder(showroom_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables pins and truth of a small showroom."""
    path = tmp_path_factory.mktemp("light")
    write_showroom(showroom_files, SMALL, 0, 1, path / "pins", path / "truth")
    return path


def test_truth_knows_the_light_of_products_in_scenes_alone(folder: Path):
    rows = tables.read(folder / "truth").to_pylist()
    known = [row for row in rows if row["log_gain"] is not None]
    assert 15 < len(known) < 36
    assert {row["kind"] for row in known} == {"in_scene"}
    assert {row["defect"] for row in known} <= {None, "near_duplicate", "empty_text", "unrelated_text"}
    assert all(len(row["log_gain"]) == 192 for row in known)


def test_a_gain_is_removed_where_the_product_is():
    pixels, alpha = build_background((40, 30)) // 2 + 20, np.zeros((30, 40), np.float32)
    alpha[5:25, 10:30] = 1
    box, grid = (10, 5, 30, 25), build_slope(-0.2, 0.2)
    lit = apply_gain(pixels, grid, box, alpha > 0)
    unlit = remove_gain(lit, grid, box, alpha)
    assert np.abs(unlit.astype(int) - pixels).max() <= 1
    assert (lit != pixels).any()


def test_the_products_of_pins_lose_the_light_that_the_scene_gave_them(folder: Path):
    ids = set(read_column(folder / "truth", "kind", {f"showroom-0-{index:06d}" for index in range(40)}))
    pins = list(iterate_lit_pins(folder / "pins", folder / "truth", ids))
    for pin in pins:
        inside = pin.alpha == 1
        true = apply_gain(pin.unlit, pin.log_gain, pin.box, pin.alpha > 0)
        assert np.abs(true.astype(int) - pin.pixels)[inside].mean() < 2
        assert np.array_equal(pin.unlit[pin.alpha == 0], pin.pixels[pin.alpha == 0])
    batch = stack_pins(pins, 16)
    assert batch["layers"].shape == (len(pins), 7, 16, 16)
    assert batch["weights"].sum((1, 2, 3)) == pytest.approx(1)
    assert stack_pins([], 16)["pin_id"] == []


def test_a_mirrored_pin_is_mirrored_in_all_that_is_known_of_it(folder: Path):
    ids = {f"showroom-0-{index:06d}" for index in range(40)}
    batch = stack_pins(iterate_lit_pins(folder / "pins", folder / "truth", ids), 16)
    layers, boxes, gains, weights = mirror_batch(batch, Draws(0, 0, 0, len(batch["pin_id"])))
    mirrored = [row for row in range(len(layers)) if not torch.equal(layers[row], batch["layers"][row] / 255)]
    assert 0 < len(mirrored) < len(layers)
    for row in mirrored:
        assert torch.equal(layers[row], batch["layers"][row].flip(2) / 255)
        assert torch.equal(gains[row], batch["gains"][row].flip(1))
        assert torch.equal(weights[row], batch["weights"][row].flip(1))
        assert boxes[row, 0] == pytest.approx(1 - float(batch["boxes"][row, 2]))


def test_the_loss_falls_as_the_light_is_learnt(folder: Path):
    ids = {f"showroom-0-{index:06d}" for index in range(40)}
    batch = stack_pins(iterate_lit_pins(folder / "pins", folder / "truth", ids), 16)
    model, objective = build_moved(0.1).train(), LightObjective(0.2)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss, logged = objective(model, batch, Draws(0, step, 0, len(batch["pin_id"])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * logged["unlit_loss"].item()
