"""Rewards against gold by images sampled, and images before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.align.trials import Judgment, Trial
from canvas.align.guard import draw_images

SHEET_PROMPTS = 6


def draw_curves(trials: Sequence[Trial], target: Path) -> None:
    """Draw a panel for each arm: rise of its rewards in deviations and change of gold since the start, thin by seed and
    thick their mean; crosses are alarms."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(trial.arm for trial in trials))
    figure = Figure(figsize=(2.6 * len(arms), 2.4), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(arms), squeeze=False, sharey=True)[0]
    twins = [panel.twinx() for panel in panels]
    for arm, panel, twin in zip(arms, panels, twins, strict=True):
        arm_runs = [trial for trial in trials if trial.arm == arm]
        for side, colour, name in ((panel, "tab:orange", "reward"), (twin, "tab:blue", "gold")):
            curves = [_list_changes(trial, name) for trial in arm_runs]
            for places, values in curves:
                side.plot(places, values, color=colour, linewidth=0.7, alpha=0.5)
            length = min(len(places) for places, _ in curves)
            mean = np.mean([values[:length] for _, values in curves], axis=0)
            side.plot(curves[0][0][:length], mean, color=colour, linewidth=2, label=name)
            side.tick_params(axis="y", labelcolor=colour, labelsize=7)
        for trial in arm_runs:
            places, values = _list_changes(trial, "gold")
            alarms = [place for place, check in enumerate(trial.checks) if check.alarm]
            twin.plot([places[place] for place in alarms], [values[place] for place in alarms], "x", color="tab:red")
        twin.axhline(0, color="grey", linewidth=0.5)
        panel.set_title(arm, fontsize=9)
        panel.set_xlabel("images sampled", fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
    limits = [twin.get_ylim() for twin in twins]
    for twin in twins:
        twin.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    panels[0].set_ylabel("reward, deviations", color="tab:orange", fontsize=8)
    twins[-1].set_ylabel("gold, change", color="tab:blue", fontsize=8)
    figure.savefig(target)


def draw_before_and_after(before: Judgment, after: Judgment) -> bytes:
    """Draw held-out prompts before and after an alignment at the same seeds, as PNG."""
    return draw_images([before.images, after.images], SHEET_PROMPTS)


def _list_changes(trial: Trial, name: str) -> tuple[list[float], list[float]]:
    """Return images sampled and the change since the start, by check."""
    values: Mapping[str, list[float]] = {
        "reward": [check.reward for check in trial.checks],
        "gold": [check.gold - trial.checks[0].gold for check in trial.checks],
    }
    return [check.step * trial.images_a_step for check in trial.checks], values[name]
