"""What is compared: params of each arm, as changes of section `align`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.declare.profiles import merge_sections

ENDLESS = 1_000_000

TRAIN: Mapping[str, Any] = {"steps": 32, "batch_size": 48, "learning_rate": 5e-4, "warmup_steps": 2, "override": {}}
"""How it is trained where params train nothing."""

UNGUARDED, UNGUARDED_LENGTH = "unguarded", 3
"""The arm whose last weights are judged, whatever the guard says, and how many times as long it trains; of the others
the best check's weights are judged."""

ARMS: Mapping[str, Mapping[str, Any]] = {
    "nft": {},
    "nft-diverse": {"rewards": {"diversity": 1.0}},
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
        "rollouts": {"guidance_scale": 4.0, "updates": 3},
        "pretraining": {"own_step": True},
    },
    UNGUARDED: {"pretraining": {"weight": 0.0}, "guard": {"patience": ENDLESS}},
}
"""What each arm has differently from section `align`."""


def build_sections(arm: str, seed: int, sections: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return params of an arm at a seed, with `changes` of section `align` that all arms have."""
    params = merge_sections(sections, {"align": changes, "training": {"seed": seed}})
    params = merge_sections(params, {"align": ARMS[arm]})
    if arm == UNGUARDED:
        train = params["align"]["train"]
        params = merge_sections(params, {"align": {"train": {"steps": UNGUARDED_LENGTH * train["steps"]}}})
    return params
