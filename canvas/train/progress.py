"""The part of a run that outlives its process, and how it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from canvas.train.checkpoint import delete_old_checkpoints, get_step_directory, read_last_checkpoint, write_checkpoint
from canvas.train.distributed import World, gather_tensors, match_layout
from canvas.train.ema import Averages
from canvas.train.optimizers import flatten_optimizer_state, load_optimizer_state
from canvas.train.player import Player

SNAPSHOTS = "ema"
"""Directory, among the checkpoints, of the averages' snapshots; these are kept for all steps."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """A run as far as it has come."""

    identity: Mapping[str, Any]
    players: list[Player]
    averages: Averages
    scaler: torch.amp.GradScaler
    steps_done: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def save_progress(checkpoints: Path, progress: Progress, world: World) -> None:
    """Write the snapshots of the averages, then the checkpoint: it is whole only if those of its step are."""
    snapshots = {str(length): gather_tensors(tensors, world) for length, tensors in progress.averages.tensors.items()}
    if snapshots and world.rank == 0:
        write_checkpoint(get_step_directory(checkpoints / SNAPSHOTS, progress.steps_done), snapshots, {})
    del snapshots  # before the model's own tensors come to the CPU
    files = {}
    for player in progress.players:
        state = flatten_optimizer_state(player.optimizer, player.parameters)
        files[f"{player.name}model"] = gather_tensors(player.tensors, world)
        files[f"{player.name}optimizer"] = gather_tensors(state, world)
    if world.rank == 0:
        index = {
            "run": progress.identity,
            "losses": progress.losses,
            "rates": progress.rates,
            "scaler": progress.scaler.state_dict(),
            "snapshots": SNAPSHOTS if progress.averages.tensors else None,
        }
        write_checkpoint(get_step_directory(checkpoints, progress.steps_done), files, index)
        delete_old_checkpoints(checkpoints, progress.steps_done)
    world.wait()


def restore_progress(checkpoints: Path, progress: Progress, world: World) -> None:
    """Bring `progress` and its models to the last whole checkpoint; nothing changes if there is none. ValueError if it
    is of another run (naming each value that differs), or not the same on every rank."""
    last = read_last_checkpoint(checkpoints)
    if world.broadcast(last and last[0]) != (last and last[0]):
        raise ValueError(f"{checkpoints} differs between processes: put it on storage that all of them share")
    if last is None:
        return
    progress.steps_done, files, state = last
    if changed := [key for key, value in progress.identity.items() if state["run"].get(key) != value]:
        changes = ", ".join(f"{key} was {state['run'].get(key)}, is {progress.identity[key]}" for key in changed)
        raise ValueError(f"{checkpoints} holds another run ({changes}): restore its values, or remove it to start anew")
    with torch.no_grad():
        for player in progress.players:
            for name, tensor in player.tensors.items():
                tensor.copy_(match_layout(tensor, files[f"{player.name}model"][name]))
            load_optimizer_state(player.optimizer, player.parameters, files[f"{player.name}optimizer"])
        for length in progress.averages.tensors:
            progress.averages.load(length, files[str(length)])
    progress.scaler.load_state_dict(state["scaler"])
    progress.losses = [(step, loss) for step, loss in state["losses"]]
    progress.rates = state["rates"]
