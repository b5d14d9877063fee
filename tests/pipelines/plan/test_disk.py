"""Bytes of shards, and of what a run keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from canvas.train.checkpoint import MAX_CHECKPOINTS
from canvas.train.loop import fit
from pipelines.plan.disk import build_checkpoint_rows, build_pin_rows
from pipelines.plan.profile import count_parameters, denoiser_spec, read_specs
from tests.canvas.train import subject
from tests.pipelines.plan.conftest import RUN


def stored(folder: Path) -> int:
    """Bytes of all tensors in it."""
    return sum(tensor.nbytes for file in folder.rglob("*.safetensors") for tensor in load_file(file).values())


def test_bytes_of_a_pin(xl):
    rows = {name: size for name, _, size in build_pin_rows(read_specs(xl), RUN)}
    assert rows["moments"] == torch.zeros(8, 8, 8, dtype=torch.half).nbytes
    assert rows["text states"] == torch.zeros(2, 77, 2048, dtype=torch.half).nbytes
    assert rows["image"] == torch.zeros(768 + 1280, dtype=torch.half).nbytes
    assert rows["masked latents"] == torch.zeros(2, 4, 8, 8, dtype=torch.half).nbytes
    assert rows["total"] == sum(size for name, size in rows.items() if name != "total")


def test_each_view_of_a_pin_has_all_of_them(xl):
    one, three = (
        {name: size for name, _, size in build_pin_rows(read_specs(xl), replace(RUN, views=n))} for n in (1, 3)
    )
    assert three == one | {"total": 3 * one["total"]}


def test_averages_and_checkpoints_of_a_real_run(tmp_path: Path):
    spec = replace(subject.SPEC, ema=(0.05, 0.1))
    model = subject.denoiser()
    fit(model, subject.denoising, subject.batches(spec), spec, checkpoints=tmp_path, log=subject.unlogged)
    rows = {name: size for name, _, size in build_checkpoint_rows({"train": (spec, count_parameters(model))})}
    averages = stored(tmp_path / "ema")
    assert rows["train, averages"] == averages == 12 / 3 * 2 * 4 * count_parameters(model)
    checkpoints = (stored(tmp_path) - averages) / MAX_CHECKPOINTS * (MAX_CHECKPOINTS + 1)
    assert 0.9 * checkpoints < rows["train, checkpoints"] <= checkpoints  # buffers and counts of steps beside


def test_full_size_averages_fit_a_disk(xl):
    train = denoiser_spec(xl, "train_base")
    rows = {name: size for name, _, size in build_checkpoint_rows({"train_base": (train, 2_567_463_684)})}
    assert train.checkpoint_every == 5000
    assert rows["train_base, averages"] == 40 * 2 * 2_567_463_684 * 4 < 1e12
