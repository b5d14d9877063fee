"""Stages that choose no average of the weights refuse to track one."""

from pathlib import Path

import pytest

from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections, read_stage_params

WITHOUT = ("train_segmenter", "train_captioner", "train_clip", "train_uve", "train_reward", "train_decoder")


@pytest.mark.parametrize("name", WITHOUT)
def test_an_average_that_nobody_would_choose_is_refused(name):
    sections = load_sections(Path(__file__).parents[2] / "params.yaml")
    read_stage_params(load_stage(name), sections)
    sections[name]["train"]["ema"] = [0.1]
    with pytest.raises(ValueError, match=rf"{name}\.train\.ema is \[0\.1\]: no average of the weights is chosen here"):
        read_stage_params(load_stage(name), sections)
