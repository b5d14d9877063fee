"""The trainings of the shipped profiles, at any effort."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canvas.train.spec import TrainableParams, TrainSpec
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections, read_stage_params
from lifecycle.declare.profiles import merge_sections

ROOT = Path(__file__).parents[2]
STAGES = {stage.name: stage for stage in load_stages() if "training" in stage.params}

SKIPPED: dict[str, Any] = {
    "align": {"steps": 40, "batch_size": 48, "learning_rate": 3e-4, "warmup_steps": 2}
    | {"override": {"checkpoints": 4, "samples": 4}},
    "train_text": {"steps": 240, "batch_size": 128, "learning_rate": 1e-3, "warmup_steps": 20}
    | {"override": {"weight_decay": 0.1}},
    "train_upscaler": {"steps": 240, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 10}
    | {"override": {"channels_last": True}},
}
"""Trainings that the demo skips, as they would be."""


def spec_of(profile: str, name: str, effort: float, **changes: Any) -> TrainSpec:
    sections = load_sections(profile, ROOT)
    if sections[name]["train"] is None:
        sections = merge_sections(sections, {name: {"train": SKIPPED[name]}})
    sections = merge_sections(sections, {"training": {"effort": effort}, name: changes})
    params = read_stage_params(STAGES[name], sections)
    own: TrainableParams = params[name]
    assert own.train is not None
    if "held_out" in params:
        return params[name].resolve(params["training"], params["held_out"])
    return params["training"].resolve(own.train)


def test_every_training_has_the_shared_values() -> None:
    assert len(STAGES) == 16
    assert all(issubclass(stage.params[name], TrainableParams) for name, stage in STAGES.items())


@pytest.mark.parametrize("effort", [0.5, 2.0])
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("profile", ["demo", "tiny"])
def test_effort_scales_steps_and_warmup_and_keeps_checkpoints(profile: str, name: str, effort: float) -> None:
    whole, scaled = spec_of(profile, name, 1.0), spec_of(profile, name, effort)
    marks = whole.steps // whole.checkpoint_every
    assert scaled.steps - whole.steps * effort in range(marks)  # up to whole checkpoints
    assert abs(scaled.warmup_steps - whole.warmup_steps * effort) <= 0.5
    assert scaled.steps // scaled.checkpoint_every == whole.steps // whole.checkpoint_every
    assert scaled.steps // scaled.sample_every == whole.steps // whole.sample_every
    sections = load_sections(profile, ROOT)
    most = (sections[name]["train"] or SKIPPED[name])["override"].get("log_every", sections["training"]["log_every"])
    assert 1 <= scaled.log_every <= most
    same = ("steps", "warmup_steps", "checkpoint_every", "sample_every", "log_every")
    assert replace(scaled, **{key: getattr(whole, key) for key in same}) == whole


@pytest.mark.parametrize("effort", [0.01, 0.37, 1.7])
@pytest.mark.parametrize("name", STAGES)
def test_any_effort_can_be_trained(name: str, effort: float) -> None:
    spec = spec_of("demo", name, effort)
    marks = spec.steps // spec.checkpoint_every
    assert abs(spec.steps - effort * spec_of("demo", name, 1.0).steps) <= max(marks, 2)


def test_the_adversary_starts_as_late_as_the_training_is_long() -> None:
    sections = merge_sections(load_sections("demo", ROOT), {"training": {"effort": 0.5}})
    params = read_stage_params(STAGES["train_decoder"], sections)
    assert params["train_decoder"].adversary.scale(params["training"]).start_step == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 401}, "steps is 401: it must be a multiple of 2, for 2 checkpoints and 1 samples at even distances"),
        ({"warmup_steps": 500}, "warmup_steps is 500: it must be at most the 150 steps"),
        ({"override": {"parallel": "tpu"}}, "'parallel' in section 'train_inpaint.train.override' is \"tpu\""),
        ({"override": {"effort": 2.0}}, "key 'effort' in section 'train_inpaint.train.override' is unknown"),
        (
            {"override": {"checkpoints": 0}},
            "'checkpoints' in section 'train_inpaint.train.override' is 0: it must be 1 or more",
        ),
        ({"override": {"accumulate": 5}}, "batch_size is 24: it must be a multiple of accumulate, which is 5"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_starts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of("demo", "train_inpaint", 1.0, train=changes)


@pytest.mark.parametrize("effort", [0.0, -1.0])
def test_an_effort_that_trains_nothing_is_refused(effort: float) -> None:
    with pytest.raises(ValueError, match=r"'effort' in section 'training' is .*: it must be above 0"):
        spec_of("demo", "train_base", effort)


def test_overrides_win_over_shared_values() -> None:
    spec = spec_of("demo", "tune_engaged", 1.0)
    assert (spec.schedule, spec.checkpoint_every, spec.weight_decay) == ("constant", 30, 0.01)
    assert spec_of("demo", "train_base", 1.0).ema == (0.05, 0.15)
    assert spec_of("demo", "train_base", 1.0, choose_average=False).ema == ()
