from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.light.shadow.model import build_shadow
from canvas.light.shadow.training import (
    ShadowBatch,
    ShadowObjective,
    fit_shadow,
    iterate_shadowed_pins,
    mirror_batch,
    shrink_opacity,
    stack_shadows,
)
from canvas.light.training import iterate_lit_pins
from canvas.pins import tables
from canvas.sources.showroom.render import write_showroom
from canvas.train.draws import Draws
from canvas.train.spec import build_plain_spec
from tests.canvas.light.shadow.test_model import TINY
from tests.canvas.light.test_training import SMALL

IDS = [f"showroom-0-{index:06d}" for index in range(40)]


@pytest.fixture(scope="module")
def folder(showroom_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables pins and truth of a small showroom."""
    path = tmp_path_factory.mktemp("shadow")
    write_showroom(showroom_files, SMALL, 0, 1, path / "pins", path / "truth")
    return path


@pytest.fixture(scope="module")
def batch(folder: Path) -> ShadowBatch:
    return stack_shadows(iterate_shadowed_pins(folder / "pins", folder / "truth", IDS), 16)


def test_truth_knows_the_shadow_where_it_knows_the_light(folder: Path):
    rows = tables.read(folder / "truth", ["log_gain", "shadow"]).to_pylist()
    assert [row["shadow"] is None for row in rows] == [row["log_gain"] is None for row in rows]


def test_a_pin_is_its_background_under_the_shadow_that_truth_knows(folder: Path):
    lit = {pin.pin_id: pin for pin in iterate_lit_pins(folder / "pins", folder / "truth", IDS)}
    for pin in iterate_shadowed_pins(folder / "pins", folder / "truth", IDS):
        seen, clear = lit[pin.pin_id].pixels, pin.alpha == 0
        expected = pin.background * (1 - pin.opacity[..., None])
        assert np.abs(expected - seen)[clear].mean() < 3  # two JPEGs
        assert 0.2 < pin.opacity.max() <= 0.7
        assert np.abs(pin.background.astype(float) - seen)[clear & (pin.opacity > 0.2)].mean() > 5
        assert np.abs(lit[pin.pin_id].unlit.astype(int) - pin.product).max() <= 1


def test_windows_of_pins_are_of_one_size(batch: ShadowBatch):
    count = len(batch["pin_id"])
    assert count > 15
    assert batch["layers"].shape == (count, 7, 16, 16)
    assert batch["opacities"].shape == (count, 16, 16)
    assert ((batch["boxes"] >= 0) & (batch["boxes"] <= 1)).all()
    assert (batch["boxes"][:, 3] - batch["boxes"][:, 1]).min() > 0.25
    assert stack_shadows([], 16)["pin_id"] == []


def test_an_opacity_keeps_its_mean_when_it_shrinks():
    opacity = np.random.default_rng(0).uniform(0, 0.6, (64, 48)).astype(np.float32)
    assert shrink_opacity(opacity, 16).mean() / 255 == pytest.approx(opacity.mean(), abs=0.002)
    assert shrink_opacity(opacity[:5, :7], 16).shape == (16, 16)


def test_a_mirrored_pin_is_mirrored_in_all_that_is_known_of_it(batch: ShadowBatch):
    layers, boxes, opacities = mirror_batch(batch, Draws(0, 0, 0, len(batch["pin_id"])))
    mirrored = [row for row in range(len(layers)) if not torch.equal(layers[row], batch["layers"][row] / 255)]
    assert 0 < len(mirrored) < len(layers)
    for row in mirrored:
        assert torch.equal(layers[row], batch["layers"][row].flip(2) / 255)
        assert torch.equal(opacities[row], batch["opacities"][row].flip(1) / 255)
        assert boxes[row, 0] == pytest.approx(1 - float(batch["boxes"][row, 2]))


def test_the_loss_falls_as_shadows_are_learnt(batch: ShadowBatch):
    torch.manual_seed(0)
    model, objective = build_shadow(TINY), ShadowObjective(0.2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses, none = [], []
    for step in range(150):
        loss, logged = objective(model, batch, Draws(0, step, 0, len(batch["pin_id"])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        none.append(logged["unshadowed_loss"].item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(none[-5:])


def test_a_seed_gives_the_same_network_and_its_log_names_it(batch: ShadowBatch, tmp_path: Path):
    names: set[str] = set()
    spec = build_plain_spec(steps=2, batch_size=4, learning_rate=1e-3)
    made = [
        fit_shadow(TINY, batch, 0.2, spec, tmp_path / name, lambda values, step: names.update(values))
        for name in ("a", "b")
    ]
    assert all(torch.equal(*pair) for pair in zip(*(model.state_dict().values() for model in made), strict=True))
    assert {"shadow_loss", "shadow_unshadowed_loss"} <= names
    assert not made[0].training
