from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from canvas.clip.model import TextTower, build_clip, encode_prompts, load_clip, measure_text_widths, save_clip
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import (
    TUNING_FILE,
    MixedTextTower,
    build_first_weights,
    build_mixed_tower,
    check_sizes,
    link_encoders,
    load_towers,
    write_tuning,
)
from tests.canvas.tiny import CLIP, OTHER_CLIP

TEXT = TextSpec(first=CLIP, second=OTHER_CLIP, t5=None)
PROMPTS = ["red mug, in a forest", "a lobby"]


@pytest.fixture
def encoders(tmp_path: Path) -> Path:
    """What train_clip writes."""
    for seed, (name, spec) in enumerate((("first", CLIP), ("second", OTHER_CLIP))):
        torch.manual_seed(seed)
        save_clip(build_clip(spec), spec, tmp_path / "clip" / name)
    return tmp_path / "clip"


def test_the_first_mix_is_the_states_that_a_denoiser_reads(encoders: Path) -> None:
    plain = load_towers(encoders, TEXT)
    states, pooled = encode_prompts(plain, PROMPTS)
    write_tuning(encoders / "second", [24], build_first_weights(OTHER_CLIP.text_layers).tolist())
    mixed = load_towers(encoders, TEXT)
    assert isinstance(mixed[1], MixedTextTower)
    assert measure_text_widths(mixed) == measure_text_widths(plain)
    again, pooled_again = encode_prompts(mixed, PROMPTS)
    assert torch.equal(states, again)
    assert torch.equal(pooled, pooled_again)


def test_a_mix_is_the_weighted_sum_of_the_blocks(encoders: Path) -> None:
    tower = TextTower.from_clip(load_clip(encoders / "second"), OTHER_CLIP)
    tokens = tower.tokenize(PROMPTS)
    with torch.no_grad():
        blocks = tower.clip.forward_intermediates(text=tokens, normalize=False)["text_intermediates"]
        states, pooled = build_mixed_tower(tower, [0.25, -2.0])(tokens)
        torch.testing.assert_close(states, 0.25 * blocks[0] - 2.0 * blocks[1])
        torch.testing.assert_close(pooled, tower(tokens)[1], rtol=0, atol=0)


def test_a_mixed_tower_survives_the_disk(encoders: Path, tmp_path: Path) -> None:
    tower = build_mixed_tower(TextTower.from_clip(load_clip(encoders / "second"), OTHER_CLIP), [0.1, 0.7])
    tower.save_pretrained(tmp_path / "saved")
    loaded = MixedTextTower.from_pretrained(tmp_path / "saved").eval()
    tokens = tower.tokenize(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens), tower(tokens), rtol=0, atol=0)


def test_a_mix_of_other_layers_is_refused(encoders: Path) -> None:
    write_tuning(encoders / "second", [24], [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="the mix has 3 layer weights, the text tower 2 blocks: train it anew"):
        load_towers(encoders, TEXT)


def test_encoders_pass_through_byte_for_byte(encoders: Path, tmp_path: Path) -> None:
    write_tuning(encoders / "second", [24, 12], None)
    counts = link_encoders(encoders, tmp_path / "text")
    assert counts["linked_files"] + counts["copied_files"] == 5
    files = {file.relative_to(encoders): file.read_bytes() for file in encoders.rglob("*") if file.is_file()}
    there = {file.relative_to(tmp_path / "text"): file.read_bytes() for file in (tmp_path / "text").rglob("*.*")}
    assert there == files
    assert json.loads((tmp_path / "text" / "second" / TUNING_FILE).read_text()) == {
        "widths": [24, 12],
        "layer_weights": None,
    }
    assert not isinstance(load_towers(tmp_path / "text", TEXT)[1], MixedTextTower)


def test_a_directory_of_something_else_is_refused(encoders: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no first/ with open_clip_config.json and .*: name a directory that"):
        link_encoders(encoders / "first", tmp_path / "text")


def test_encoders_of_other_sizes_are_refused(encoders: Path) -> None:
    check_sizes(encoders, TEXT)
    with pytest.raises(ValueError, match=r"clip/second has embed_dim 24 and .* text.second says 16 and .*make them"):
        check_sizes(encoders, TextSpec(first=CLIP, second=CLIP, t5=None))
