from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canvas.align.guard import GoldScore, GoldVerdict, Guard, JudgedImages, draw_images
from canvas.align.policy import Policy
from tests.canvas.align.parts import build_params, build_policy, perturb

EVERY = 5


class Sampler:
    """Images whose reward is how far the policy has moved from its start."""

    images = 2

    def __init__(self) -> None:
        self.asked = 0

    def sample(self, policy: Policy, rows: Sequence[Any], stream: int) -> JudgedImages:
        self.asked += 1
        moved = sum(float(weight.abs().sum()) for weight in policy.copy_weights().values())
        pixels = [np.full((8, 8, 3), number, np.uint8) for number in range(4)]
        names = ["a", "a", "b", "b"]
        return JudgedImages(pixels, names, [0, 0, 1, 1], names, 2, {"aesthetics": [moved, moved + 1, moved, moved + 1]})


class Judge:
    """Says these golds, one after the other."""

    def __init__(self, golds: Sequence[float]) -> None:
        self.golds = list(golds)

    def judge(self, images: JudgedImages) -> GoldScore:
        gold = self.golds.pop(0)
        return GoldScore(gold, (gold,) * len(images.images), figures={"kid": 0.1})

    def compare(self, before: GoldScore, after: GoldScore, images: JudgedImages) -> GoldVerdict:
        return GoldVerdict(after.gold > before.gold, "by gold", {"gain": after.gold - before.gold})


class Log:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.alarms: list[float] = []
        self.images: list[str] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)
        self.alarms.append(values["alarm"])

    def image(self, name: str, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.images.append(name)


def build_guard(folder: Path, golds: Sequence[float], patience: int = 2) -> tuple[Guard, Log]:
    params = build_params()
    params = replace(params, guard=replace(params.guard, patience=patience))
    log = Log()
    return Guard(params, Sampler(), Judge(golds), [], every=EVERY, folder=folder, log=log), log


def train(guard: Guard, policy: Policy, steps: int) -> int:
    """Move the policy a step at a time until the guard stops it; return the step."""
    for step in range(steps):
        if guard(policy, step):
            return step
        perturb(policy, seed=step)
    return steps


def test_the_run_ends_when_gold_falls_and_the_best_is_taken(tmp_path: Path) -> None:
    guard, log = build_guard(tmp_path, [0.5, 0.6, 0.55, 0.4, 0.9])
    policy = build_policy("unet")
    start = policy.copy_weights()
    assert train(guard, policy, 100) == 15
    assert guard.best.step == 5
    assert log.steps == [0, 5, 10, 15]
    assert log.images == [f"samples-{step:06d}" for step in (0, 5, 10, 15)]
    guard.load_best(policy)
    best, again = policy.copy_weights(), build_policy("unet")
    again.load_weights(start)
    for step in range(5):
        perturb(again, seed=step)
    assert all(torch.equal(weight, best[name]) for name, weight in again.copy_weights().items())


def test_rising_rewards_and_falling_gold_raise_the_alarm(tmp_path: Path) -> None:
    guard, log = build_guard(tmp_path, [0.5, 0.4, 0.6])
    policy = build_policy("unet")
    train(guard, policy, 11)
    assert guard.alarms == [5]
    assert log.alarms == [0.0, 1.0, 0.0]
    assert [check.reward > 0 for check in guard.checks.values()] == [False, True, True]


def test_falling_rewards_raise_no_alarm(tmp_path: Path) -> None:
    guard, _ = build_guard(tmp_path, [0.5, 0.4])
    policy = build_policy("unet")
    guard(policy, 0)
    policy.load_weights({name: weight / 2 for name, weight in policy.copy_weights().items()})
    guard(policy, EVERY)
    assert guard.checks[EVERY].reward < 0
    assert guard.alarms == []


def test_a_killed_run_finds_its_checks_again(tmp_path: Path) -> None:
    guard, _ = build_guard(tmp_path, [0.5, 0.6, 0.55])
    train(guard, build_policy("unet"), 11)
    again, log = build_guard(tmp_path, [])
    assert not again(build_policy("unet"), 10)
    assert again.checks == guard.checks
    assert log.steps == []


def test_a_check_that_is_lost_is_not_made_of_a_later_policy(tmp_path: Path) -> None:
    guard, _ = build_guard(tmp_path, [0.5])
    with pytest.raises(AssertionError, match="the check of step 0 is missing"):
        guard(build_policy("unet"), EVERY)


@pytest.mark.parametrize(("golds", "is_better"), [([0.4, 0.6], True), ([0.6, 0.4], False)])
def test_the_end_is_judged_against_the_start(tmp_path: Path, golds: list[float], is_better: bool) -> None:
    guard, _ = build_guard(tmp_path, golds)
    policy = build_policy("unet")
    perturb(policy)
    verdict, before, after, figures = guard.judge_final(policy, [])
    assert verdict.is_better == is_better
    assert (figures["gold_before"], figures["gold_after"]) == tuple(golds)
    assert figures["reward_aesthetics_after"] > figures["reward_aesthetics_before"] == 0.5  # the start's LoRA is nil
    assert len(draw_images([before, after], 2)) > len(draw_images([before], 2))
