from __future__ import annotations

import pytest
import torch

from canvas.align.prompts import PromptSource
from canvas.shards.rows import ShardRows, has_product
from tests.canvas.align.parts import SCALE
from tests.components.generator_parts import CHANNELS, write_random_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardRows:
    root = tmp_path_factory.mktemp("prompts")
    write_random_shards(root / "shards")
    return ShardRows(root / "shards")


@pytest.mark.parametrize("masks", ["product", "none"])
def test_prompts_come_as_often_as_images_are_sampled(shards: ShardRows, masks: str) -> None:
    rows = [row for row in shards.index if has_product(row) and row.bucket == "48x80"][:2]
    captions = {row.pin_id: f"mug {row.pin_id}, in a forest" for row in rows}
    source = PromptSource(shards, SCALE, rows, captions, masks, {})
    group = source.read([row.row for row in rows], 3, torch.device("cpu"))
    first, second = (row.pin_id for row in rows)
    assert group.pin_ids == [first] * 3 + [second] * 3
    assert group.prompts[3] == f"mug {second}, in a forest"
    assert group.latent_shape == (CHANNELS, 6, 10)
    assert group.products is None
    states = group.condition.states
    assert torch.equal(states[0], states[2])
    assert not torch.equal(states[2], states[3])
    stored = shards.read_columns([rows[1].row], ["text_states", "masked_product"])
    assert torch.equal(states[3], stored["text_states"][0, 0].float())
    if masks == "none":
        assert group.condition.hole is None
    else:
        assert torch.equal(group.condition.masked_latents[3], stored["masked_product"][0, 0].float())
    part = group.select(slice(2, 4))
    assert part.pin_ids == [first, second]
    assert torch.equal(part.condition.states, states[2:4])
