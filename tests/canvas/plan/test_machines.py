"""What stages hold in the memory of their machine: numbers of copies are those that the code makes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from canvas.data.clusters import descriptors
from canvas.plan.machines import COPIES, SUMMED, held, quantity
from lifecycle.graph import load_stage
from pipelines.cluster import read_cluster
from tests.canvas.plan.conftest import CLUSTER

COUNT, WIDTH = 5_000, 128


def peak(work: Callable[[], object]) -> int:
    """Bytes that it allocates at most at once."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del result


@pytest.mark.parametrize(("text", "number"), [("96", 96), ("500m", 0.5), ("960Gi", 960 * 2**30), ("1.5T", 1.5e12)])
def test_quantities(text, number):
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "96 GB", "960gi", "1e3Ki4"])
def test_no_quantity(text):
    with pytest.raises(ValueError, match="is no quantity of Kubernetes: write it as 96, 500m or 960Gi"):
        quantity(text)


@pytest.mark.parametrize(("products", "summed"), [(COUNT, SUMMED), (1, 0)])
def test_descriptors_are_made_of_so_many_copies(products, summed):
    vectors = np.random.default_rng(0).standard_normal((COUNT, WIDTH)).astype(np.float32)
    contents = [str(row % products) for row in range(COUNT)]
    wanted = COUNT * WIDTH * (4 * COPIES + summed)
    assert vectors.nbytes + peak(lambda: descriptors(vectors, contents)) == pytest.approx(wanted, rel=0.05)


def test_stages_hold_it_on_their_machines(xl, machines):
    rows = held(xl, machines, denoiser=1, vectors=10)
    classes = read_cluster(CLUSTER).machines
    for row in rows:
        assert load_stage(row.what.partition(",")[0]).machine == row.kind
        own = getattr(classes, row.kind)
        assert (row.machine.cpu, row.machine.memory, row.machine.gpus) == (own.cpu, own.memory, own.gpus)
        assert row.processes == max(1, own.gpus)


def test_what_training_stages_hold_at_full_size(xl, machines):
    rows = {row.what: row for row in held(xl, machines, denoiser=2_567_478_084, vectors=10_000_000)}
    assert rows["train_uve"].bytes == 250_000 * np.zeros((280, 280, 3), np.uint8).nbytes
    assert rows["train_uve"].share <= 0.5
    assert rows["train_reward"].share <= 0.5
    assert rows["mine_styles"].share <= 0.75  # texts of the pins are beside it
    assert "46% of 960Gi (gpus)" in rows["train_uve"].line()
    assert "too much" not in rows["train_uve"].line()


def test_fewer_vectors_than_are_mined_are_all_held(xl, machines):
    few, many, all_there_are = (
        next(row.bytes for row in held(xl, machines, denoiser=0, vectors=count) if row.what == "mine_styles")
        for count in (1_000, 10_000_000, 1_500_000_000)
    )
    assert few * 10_000 == many == all_there_are


def test_too_much_is_said(xl, machines):
    small = replace(machines("gpus"), memory="400Gi")
    row = held(xl, lambda name: small if name == "gpus" else machines(name), denoiser=0, vectors=10)[0]
    assert row.line().endswith(": 110% of 400Gi (gpus), too much")
