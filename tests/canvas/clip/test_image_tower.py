from __future__ import annotations

from pathlib import Path

import torch

from canvas.clip.image_tower import ImageTower
from canvas.clip.model import build_clip
from canvas.features.perceptual import compute_image_embeddings
from tests.canvas import tiny


def test_sees_what_the_whole_encoder_sees_and_survives_the_disk(tmp_path: Path):
    torch.manual_seed(0)
    clip = build_clip(tiny.OTHER_CLIP).eval()
    images = torch.rand(2, 3, 50, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tower = ImageTower.from_clip(clip, tiny.OTHER_CLIP)
    assert sum(weight.numel() for weight in tower.parameters()) == sum(w.numel() for w in clip.visual.parameters())
    tower.save_pretrained(tmp_path)
    again = ImageTower.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = compute_image_embeddings(clip, images)
        assert torch.equal(compute_image_embeddings(tower.clip, images), wanted)
        assert torch.equal(compute_image_embeddings(again.clip, images), wanted)
