"""Stage `train_reward`: real and corrupted images, and people's judgments, in; a model that judges images out."""

from __future__ import annotations

import time
from functools import partial

from canvas.clip.spec import TextSpec
from canvas.reward.spec import HEADS, RewardSpec, RewardTrainingSpec, estimate_reward_memory
from canvas.train.spec import Training
from components import artifacts
from components.artifacts import Captions, Clip, Kept, Masks, Pins, Preferences, SyntheticJudgments, Truth
from lifecycle.declare.skipping import write_skipped
from lifecycle.declare.stage import Input, Losses, Metrics, Output, Scratch, Sheet, StepLog, stage


@stage(machine="gpu", memory=estimate_reward_memory, skips=True)
def train_reward(
    train_reward: RewardTrainingSpec,
    training: Training,
    reward: RewardSpec,
    text: TextSpec,
    pins: Input[Pins],
    kept: Input[Kept],
    truth: Input[Truth],
    masks: Input[Masks],
    captions: Input[Captions],
    clip: Input[Clip],
    preferences: Input[Preferences],
    model: Output[artifacts.RewardModel],
    judgments: Output[SyntheticJudgments],
    metrics: Output[Metrics],
    losses: Output[Losses],
    sheet: Output[Sheet],
    log: StepLog,
    scratch: Scratch,
) -> None:
    """Train the reward model on synthetic judgments and what people said, and score it on what it never saw.

    The sheet shows held-out pins under every corruption, with the scores of the reward model.
    """
    from canvas.pins.fallbacks import Notes
    from canvas.pins.images import encode_png
    from canvas.reward.human_comparisons import read_human_comparisons
    from canvas.reward.model import load_prompt_tower, tokenize_backgrounds
    from canvas.reward.objective import set_calibration
    from canvas.reward.preference import link_initial_reward
    from canvas.reward.product_views import RewardTables
    from canvas.reward.synthetic_judgments import write_synthetic_judgments
    from canvas.reward.training import build_comparison_sets, draw_reward_sheet, fit_reward
    from evaluation.measures import rewards

    if train_reward.train is None:
        what, counts = link_initial_reward(reward, model.path)
        write_synthetic_judgments(judgments.path, {})
        absent = None if counts else model
        write_skipped(f"train_reward.train is null, {what}", metrics, losses, sheet, absent, figures=counts)
        return
    params, spec, clock, notes = train_reward, training.resolve(train_reward.train), time.perf_counter(), Notes()
    human = read_human_comparisons(preferences.path, pins.path, params.held_out_backgrounds, side=reward.image_size)
    use_human = params.human_share > 0 and human.train_judgments >= params.min_human
    tables = RewardTables(pins=pins.path, kept=kept.path, truth=truth.path, masks=masks.path, captions=captions.path)
    tower = load_prompt_tower(clip.path, reward, text)
    tokenize, taught = partial(tokenize_backgrounds, tower), human.products if use_human else frozenset()
    sets = build_comparison_sets(tables, params, spec, reward, taught, tokenize, notes)
    drawn = time.perf_counter()
    place, learnt = scratch.path / "checkpoints", human if use_human else None
    network, result = fit_reward(reward, params, spec, tower, sets["train"], learnt, checkpoints=place, log=log.metrics)
    trained = time.perf_counter()
    how = params.score_batch, spec.precision
    aside = rewards.score_comparisons(network, sets["calibrate"], *how)
    set_calibration(network, rewards.fit_calibrations(aside, HEADS))
    network.save_pretrained(model.path)
    values = rewards.measure_reward(network, sets, human, use_human, params.held_out_backgrounds, *how)
    values["images_per_second"] = 2 * result.images_per_second
    values["seconds"] = {"draw": drawn - clock, "train": trained - drawn, "score": time.perf_counter() - trained}
    write_synthetic_judgments(judgments.path, sets)
    metrics.write(values | notes.to_metrics())
    losses.write(result.losses)
    sheet.write(encode_png(draw_reward_sheet(network, sets["mixed"].views, params.sheet_pins, params.seed)))
