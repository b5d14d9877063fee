from __future__ import annotations

from pathlib import Path

import torch

from canvas.shards.image_rows import ImageRows
from tests.components.generator_parts import write_random_shards


def test_every_row_brings_the_embedding_of_its_own_pin(tmp_path: Path):
    write_random_shards(tmp_path / "shards", rows=8)
    rows = ImageRows(tmp_path / "shards", lambda pins: torch.tensor([[float(pin.removeprefix("p"))] for pin in pins]))
    batch = rows.batch([3, 1, 3], {"moments": "moments"})
    assert batch["pin_id"] == ["p003", "p001", "p003"]
    assert torch.equal(batch["image"], torch.tensor([[3.0], [1.0], [3.0]]))
    assert batch["moments"].shape[0] == 3
