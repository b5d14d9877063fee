"""T5's encoder as a text part: its states, what is cut off, and how it is loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from tokenizers.normalizers import NFKC

from canvas.clip.model import TextTower, build_clip, encode_prompts, get_overflow, measure_text_widths
from canvas.clip.t5 import T5Tower, load_t5_tower
from tests.canvas import tiny
from tests.canvas.public_models import T5_TOKENS, build_t5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder and tokenizer in one directory, as their own repositories have them."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    for part in build_t5():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tower(folder: Path) -> T5Tower:
    return load_t5_tower(folder, folder)


def test_states_are_those_of_transformers(folder: Path, tower: T5Tower) -> None:
    """Padding is read, as in stock pipelines of Flux."""
    from transformers import T5EncoderModel, T5TokenizerFast

    tokens = T5TokenizerFast.from_pretrained(folder)(
        ["a mug", "a lamp, on the beach"], padding="max_length", max_length=T5_TOKENS, return_tensors="pt"
    )
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(folder).eval()(tokens["input_ids"])[0]
        states = tower(tower.tokenize(["a mug", "a lamp, on the beach"]))
    assert states.shape == (2, T5_TOKENS, tower.width)
    assert torch.equal(states, expected)


def test_states_are_t5s_and_pooled_text_is_clips(tower: T5Tower) -> None:
    """Whatever the contexts of both are."""
    clip = TextTower.from_clip(build_clip(tiny.CLIP), tiny.CLIP)
    states, pooled = encode_prompts((clip, tower), ["a mug"])
    with torch.no_grad():
        assert torch.equal(pooled, clip(clip.tokenize(["a mug"]))[1])
        assert torch.equal(states, tower(tower.tokenize(["a mug"])))
    assert measure_text_widths((clip, tower)) == (tower.width, tiny.CLIP.embed_dim)
    other = TextTower.from_clip(build_clip(tiny.OTHER_CLIP), tiny.OTHER_CLIP)
    assert measure_text_widths((clip, other)) == (
        tiny.CLIP.text_width + tiny.OTHER_CLIP.text_width,
        tiny.OTHER_CLIP.embed_dim,
    )


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a mug", ""),
        ("the " * (T5_TOKENS - 1), ""),
        ("the " * (T5_TOKENS - 1) + " mug", "mug"),
        ("the " * (T5_TOKENS - 3) + "zebra crossing", "zebra crossing"),
    ],
)
def test_what_does_not_fit_is_cut_at_a_word(tower: T5Tower, text: str, cut: str) -> None:
    assert tower.get_overflow(text) == cut
    assert tower.tokenize([text]).shape == (1, T5_TOKENS)


def test_letters_are_those_that_are_read(tower: T5Tower) -> None:
    assert tower.clean_text(" A  Mug ") == "a mug"
    words = copy.deepcopy(tower.tokenizer)
    words.backend_tokenizer.normalizer = NFKC()
    assert T5Tower(tower.encoder, words).clean_text("a \uff42omb") == "a bomb"


def test_the_pooled_text_may_be_of_the_beginning(tower: T5Tower) -> None:
    """A prompt longer than CLIP's context is not refused beside a T5."""
    clip = TextTower.from_clip(build_clip(tiny.CLIP), tiny.CLIP)
    text = "the mug, " * 7
    assert clip.get_overflow(text)
    assert get_overflow((clip, tower), text) == ""
    assert get_overflow((clip, clip), text) == clip.get_overflow(text)


def test_context_is_the_tokenizers_or_as_params_say(folder: Path, tower: T5Tower, tmp_path: Path) -> None:
    assert tower.context_length == T5_TOKENS
    assert load_t5_tower(folder, folder, context_length=7).tokenize(["a mug"]).shape == (1, 7)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["model_max_length"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="names no model_max_length"):
        load_t5_tower(folder, tmp_path)


def test_weights_without_safetensors_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be loaded as a T5 encoder"):
        load_t5_tower(tmp_path, folder)
