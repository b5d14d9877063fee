"""What is compared, and one run of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measurement import ROOT, run_stage
from evaluation.statistics.intervals import bootstrap_mean
from lifecycle.declare.profiles import merge_sections

ENDLESS = 1_000_000

REWARDS: Mapping[str, float] = {"prompt": 1.0, "overall": 1.0, "growth": 0.5}

ARMS: Mapping[str, Mapping[str, Any]] = {
    "nft": {},
    "nft-diverse": {"rewards": {**REWARDS, "diversity": 0.5}},
    "awm": {
        "objective": "awm",
        "nft": None,
        "awm": {"power": 0.25, "clip": 0.2},
        "reference": {"weight": 1.0, "policy": "average", "decay": 0.9},
    },
    "ppo": {
        "objective": "ppo",
        "nft": None,
        "ppo": {"noise": 1.0, "timesteps": 4, "clip": 1e-4},
        "baseline": "batch",
        "rollouts": {"guidance_scale": 4.0, "updates": 4},
        "pretraining": {"own_step": True},
    },
    "unguarded": {"pretraining": {"weight": 0.0}, "guard": {"patience": ENDLESS}},
}
"""What each arm has differently from section `align`."""

REPORTED = (
    *("better", "best_step", "last_step", "stopped_early", "alarms", "images_sampled", "seconds"),
    *("gold_before", "gold_after", "gold_gain", "gold_gain_low", "gold_gain_high"),
    *("kid_engaged_before", "kid_engaged_after", "diversity_ratio", "reward_growth_before", "reward_growth_after"),
)


def build_sections(arm: str, seed: int, sections: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return params of an arm at a seed, with `changes` of section `align` that all arms have."""
    own = merge_sections(sections, {"align": changes, "training": {"seed": seed}})
    return merge_sections(own, {"align": ARMS[arm]})


def run_arm(
    arm: str, seed: int, sections: Mapping[str, Any], changes: Mapping[str, Any], source: Path = ROOT
) -> dict[str, Any]:
    """Align by one arm at one seed, on what is in `source`; return its figures, and rewards and gold by step."""
    own = build_sections(arm, seed, sections, changes)
    with tempfile.TemporaryDirectory() as name:
        metrics = run_stage("align", own, Path(name), source)
        curve = (Path(name) / "reports" / "align" / "curve.csv").read_text(encoding="utf-8").splitlines()[1:]
    figures = {name: metrics[name] for name in REPORTED if name in metrics}
    return {"arm": arm, "seed": seed, **figures, "curve": [[float(cell) for cell in row.split(",")] for row in curve]}


def summarize_arm(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the gain in gold over the seeds of an arm, with its interval, and the images that it took."""
    gain = bootstrap_mean([run["gold_gain"] for run in runs])
    return {
        "arm": runs[0]["arm"],
        "seeds": len(runs),
        "gold_gain": [gain.mean, gain.low, gain.high],
        "diversity_ratio": sum(run["diversity_ratio"] for run in runs) / len(runs),
        "images_sampled": runs[0]["images_sampled"],
        "better": sum(run["better"] for run in runs),
    }
