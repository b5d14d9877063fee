"""Training of the reward model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from canvas.reward.comparisons import ComparisonBatches
from canvas.reward.human_comparisons import HumanBatches, HumanComparisons, MixedBatches
from canvas.reward.model import RewardModel, build_reward
from canvas.reward.objective import RewardObjective
from canvas.reward.spec import RewardSpec, RewardTrainingSpec
from canvas.reward.training_data import list_common_backgrounds
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import TrainSpec


def fit_reward(
    reward: RewardSpec,
    params: RewardTrainingSpec,
    spec: TrainSpec,
    synthetic: ComparisonBatches,
    human: HumanComparisons | None,
    *,
    checkpoints: Path,
    log: Callable[[Mapping[str, float], int], None],
) -> tuple[RewardModel, TrainResult]:
    """Return a trained reward model, not yet calibrated.

    `human`: what people compared, of which every batch has `params.human_share`; None: training uses none of it.
    Without it the model knows the commonest backgrounds, and candidates are ranked by how plainly they show the
    prompted one; with it people's overall judgments rank them by more than that.
    """
    torch.manual_seed(spec.seed)
    network = build_reward(reward)
    batches: ComparisonBatches | MixedBatches = synthetic
    if human is not None:
        batches = MixedBatches(synthetic, HumanBatches(human.learnt, words=synthetic.words), params.human_share)
    objective = RewardObjective(params.absolute_weight, params.background_weight)
    result = fit(network, objective, batches, spec, checkpoints=checkpoints, log=log)
    if human is None:
        network.register_to_config(backgrounds=list_common_backgrounds(synthetic))
    return network.eval(), result
