from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from canvas.train.checkpoint import get_step_directory, read_checkpoint
from canvas.train.distributed import World, join_world, list_shard_units
from tests.canvas.train.subject import Denoiser, run
from tests.canvas.train.two_ranks import run_in_two_ranks


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Every job that needs two processes, under one torchrun: the directory they worked in, and their results."""
    place = tmp_path_factory.mktemp("two")
    run({"checkpoints": str(place / "resumed_ddp"), "spec": {"steps": 12}, "adversary": 2})
    run({"checkpoints": str(place / "resumed_fsdp"), "spec": {"ema": [0.05, 0.1]}})
    for name in ("resumed_ddp", "resumed_fsdp"):
        for child in (place / name).rglob("step-00000012"):
            child.rename(child.with_name(f"dropped-{child.name}"))
    jobs = {
        "ddp": {"spec": {"parallel": "ddp"}},
        "ddp_accumulated": {"spec": {"parallel": "ddp", "accumulate": 2, "channels_last": True}},
        "ddp_adversary": {"spec": {"parallel": "ddp"}, "adversary": 2},
        "fsdp": {"spec": {"parallel": "fsdp", "ema": [0.05, 0.1]}},
        "fsdp_accumulated": {"spec": {"parallel": "fsdp", "accumulate": 2}},
        "fsdp_adversary": {"spec": {"parallel": "fsdp"}, "adversary": 2},
        "resumed_ddp": {"spec": {"parallel": "ddp"}, "adversary": 2},
        "resumed_fsdp": {"spec": {"parallel": "fsdp", "ema": [0.05, 0.1]}},
        "none": {"spec": {"parallel": "none"}},
        "odd": {"spec": {"parallel": "ddp", "batch_size": 7}},
    }
    for name, job in jobs.items():
        job |= {"checkpoints": str(place / name), "result": str(place / f"{name}.json")}
    run_in_two_ranks("tests.canvas.train.subject", json.dumps(list(jobs.values())))
    return place, {name: json.loads((place / f"{name}.json").read_text()) for name in jobs}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Losses of one process with the same global batch: without and with the adversary."""
    place = tmp_path_factory.mktemp("one")
    alone, adversary = ({}, {"adversary": 2})
    return {
        name: [loss for _, loss in run({"checkpoints": str(place / name), **job}).losses]
        for name, job in {"alone": alone, "adversary": adversary}.items()
    }


@pytest.mark.parametrize(
    ("job", "reference"),
    [
        ("ddp", "alone"),
        ("ddp_accumulated", "alone"),
        ("ddp_adversary", "adversary"),
        ("fsdp", "alone"),
        ("fsdp_accumulated", "alone"),
        ("fsdp_adversary", "adversary"),
        ("resumed_ddp", "adversary"),
        ("resumed_fsdp", "alone"),
    ],
)
def test_two_processes_lose_what_one_loses(two_processes, one_process, job: str, reference: str) -> None:
    losses = [loss for _, loss in two_processes[1][job]["losses"]]
    assert len(losses) == 12
    assert losses == pytest.approx(one_process[reference], abs=1e-5)


def test_processes_do_not_each_train_a_copy(two_processes) -> None:
    assert two_processes[1]["none"]["error"].startswith("parallel is none in a world of 2 processes")


def test_a_batch_that_processes_cannot_share_is_refused(two_processes) -> None:
    assert "batch_size is 7: it must be a multiple of 2 processes" in two_processes[1]["odd"]["error"]


def test_shards_are_saved_whole_and_one_process_continues_them(two_processes, one_process, tmp_path: Path) -> None:
    sharded = two_processes[0] / "fsdp"
    files, _ = read_checkpoint(get_step_directory(sharded, 12))
    averages, _ = read_checkpoint(get_step_directory(sharded / "ema", 12))
    assert files["model"]["stem.weight"].shape == averages["0.05"]["stem.weight"].shape == (8, 3, 3, 3)
    for child in sharded.rglob("step-00000012"):
        child.rename(child.with_name(f"dropped-{child.name}"))
    continued = run({"checkpoints": str(sharded), "spec": {"ema": [0.05, 0.1]}})
    assert [loss for _, loss in continued.losses] == pytest.approx(one_process["alone"], abs=1e-5)
    again, _ = read_checkpoint(get_step_directory(sharded, 12))
    for name, tensor in files["model"].items():
        torch.testing.assert_close(again["model"][name], tensor, atol=1e-5, rtol=0)


def test_average_is_the_same_over_shards(two_processes, tmp_path: Path) -> None:
    run({"checkpoints": str(tmp_path), "spec": {"ema": [0.05, 0.1]}})
    for step in (3, 6, 9, 12):
        alone, _ = read_checkpoint(get_step_directory(tmp_path / "ema", step))
        resumed, _ = read_checkpoint(get_step_directory(two_processes[0] / "resumed_fsdp" / "ema", step))
        for length, tensors in alone.items():
            for name, tensor in tensors.items():
                torch.testing.assert_close(resumed[length][name], tensor, atol=1e-5, rtol=0)


def test_fsdp_in_a_world_of_one(one_process, tmp_path: Path) -> None:
    assert "WORLD_SIZE" not in os.environ
    losses = run({"checkpoints": str(tmp_path), "spec": {"parallel": "fsdp"}}).losses
    assert [loss for _, loss in losses] == pytest.approx(one_process["alone"], abs=1e-5)
    assert not torch.distributed.is_initialized()


def test_a_world_of_one_is_left_by_who_joined_it_first() -> None:
    with join_world("fsdp") as world:
        with join_world("fsdp") as inner:
            assert (inner.rank, inner.size) == (world.rank, world.size) == (0, 1)
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


def test_ranks_share_items_without_rest() -> None:
    shares = [World(rank, 3, torch.device("cpu")).select_share(range(8)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_units_are_members_of_module_lists_or_what_the_model_names() -> None:
    model = Denoiser()
    assert list_shard_units(model) == list(model.blocks)
    model._no_split_modules = ["Conv2d"]
    assert all(isinstance(unit, nn.Conv2d) for unit in list_shard_units(model))
    assert len(list_shard_units(model)) == 4
