import json
from pathlib import Path

import numpy as np
import pytest
import torch

from canvas.clip.model import TextTower, build_clip
from canvas.clip.training import CaptionedBatches, contrastive_objective
from canvas.pins.frames import CropSpec
from canvas.pins.image_batches import CropBatches
from tests.canvas import tiny
from tests.canvas.clip.contrastive import trained
from tests.canvas.train.two_ranks import run_in_two_ranks


def test_every_caption_of_a_pin_is_drawn():
    images = [np.full((30, 40, 3), value, np.uint8) for value in (0, 255)]
    crops = CropBatches(["a", "b"], images, 20, CropSpec(zoom=1.5, mirror=True), 4, seed=0)
    tokens = {"a": torch.tensor([[1, 0], [2, 0]]), "b": torch.tensor([[3, 0]])}
    pairs = CaptionedBatches(crops, tokens, [0.5] * 3, [0.25] * 3)
    drawn: dict[str, set[int]] = {"a": set(), "b": set()}
    for step in range(8):
        batch = pairs(step, 0, 1)
        for pin, row in zip(batch["pin_id"], batch["tokens"].tolist(), strict=True):
            drawn[pin].add(row[0])
    assert drawn == {"a": {1, 2}, "b": {3}}
    assert torch.equal(pairs(2, 0, 1)["tokens"], torch.cat([pairs(2, rank, 2)["tokens"] for rank in (0, 1)]))
    assert batch["pixels"].min() >= -2
    assert batch["pixels"].max() <= 2


def test_contrastive_training_finds_pairs():
    torch.manual_seed(0)
    clip = build_clip(tiny.OTHER_CLIP)
    tower = TextTower.from_clip(clip, tiny.OTHER_CLIP)
    batch = {"pixels": torch.rand(4, 3, 16, 16), "tokens": tower.tokenize(["red", "green", "blue", "red"])}
    optimizer = torch.optim.Adam(clip.parameters(), lr=3e-3)
    for _ in range(60):
        loss, outputs = contrastive_objective(clip, batch, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert outputs["accuracy"] == 1
    assert loss < 0.5


def test_two_processes_lose_what_one_does(tmp_path: Path):
    """Their pairs are told apart from each other's, too."""
    (tmp_path / "ranked").mkdir()
    run_in_two_ranks("tests.canvas.clip.contrastive", str(tmp_path / "ranked"))
    alone, figures = trained("none", tmp_path / "alone")
    losses, norms = figures[::2], figures[1::2]
    ranked = json.loads((tmp_path / "ranked" / "figures.json").read_text())
    assert ranked[::2] == pytest.approx(losses, abs=1e-5)
    assert ranked[1::2] == pytest.approx(norms, rel=1e-5)
    saved = torch.load(tmp_path / "ranked" / "clip.pt")
    assert saved["logit_scale"] == pytest.approx(alone.logit_scale.item(), abs=1e-6)
    apart = torch.cat([(saved[name] - weight).abs().flatten() for name, weight in alone.state_dict().items()])
    # Adam takes a full step of 1e-3 for the rounding of a gradient near zero, so single weights may be further apart.
    assert apart.mean() < 1e-6
    assert apart.max() < 1e-3
