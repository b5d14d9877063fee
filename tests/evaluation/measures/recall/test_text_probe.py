from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canvas.clip.model import build_clip, encode_prompts, save_clip
from canvas.clip.spec import TextSpec
from canvas.clip.tuning.towers import load_towers
from evaluation.measures.recall.text_probe import compute_mean_states, label_texts, score_text_states
from tests.canvas.tiny import CLIP, OTHER_CLIP

TEXT = TextSpec(first=CLIP, second=OTHER_CLIP, t5=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, spec in (("first", CLIP), ("second", OTHER_CLIP)):
        torch.manual_seed(0)
        save_clip(build_clip(spec), spec, tmp_path / name)
    return tmp_path


def test_a_text_of_several_labels_has_none() -> None:
    captions = {"a": ["mug, in a forest", "Mug"], "b": ["Mug"], "c": ["View"]}
    assert label_texts(captions, {"a": "forest", "b": "lobby"}) == {
        "mug, in a forest": "forest",
        "Mug": None,
        "View": None,
    }


def test_states_are_those_that_the_denoiser_reads(folder: Path) -> None:
    towers, texts = load_towers(folder, TEXT), ["a", "b c", "d"]
    means = compute_mean_states(towers, texts, batch_size=2)
    assert means.shape == (3, CLIP.text_width + OTHER_CLIP.text_width)
    torch.testing.assert_close(torch.from_numpy(means), encode_prompts(towers, texts)[0].mean(dim=1))


def test_texts_in_much_the_same_words_find_each_other(folder: Path) -> None:
    """Two scenes in words that share nothing: even random towers tell them apart."""
    scenes = {"forest": "tree moss fern pine", "sea": "wave 12 77 sand"}
    captions, labels = {}, {"scene": {}, "product": {}}
    for place, (scene, words) in enumerate(scenes.items()):
        for number in range(3):
            pin = f"p{place}{number}"
            captions[pin] = [f"{words} {number}"]
            labels["scene"][pin], labels["product"][pin] = scene, pin
    scores = score_text_states(folder, TEXT, captions, labels, batch_size=4)
    assert scores["scene"]["recall_at_1"] == 1
    assert scores["scene"]["queries"] == 6
    assert scores["product"] == {"queries": 0}  # nobody else shows it
