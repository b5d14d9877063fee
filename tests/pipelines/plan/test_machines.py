"""What stages hold in the memory of their machine: numbers of copies are those that the code makes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canvas.pins import tables
from canvas.pins.captions import read_captions
from canvas.shards import rows
from canvas.styles.clusters import compute_descriptors
from evaluation.generator.style_trials import plan_trials
from evaluation.judges.features import choose_view_side
from lifecycle.declare.graph import load_stage
from pipelines.cluster import read_cluster
from pipelines.plan.machines import (
    CAPTION_BYTES,
    DESCRIPTOR_COPIES,
    INDEX_ROW_BYTES,
    JUDGE_SIDE,
    PRODUCT_MEAN_BYTES,
    StyleTrialCount,
    compute_stage_memory,
    parse_quantity,
)
from tests.pipelines.plan.conftest import CLUSTER

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
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "96 GB", "960gi", "1e3Ki4"])
def test_no_quantity(text):
    with pytest.raises(ValueError, match="is no quantity of Kubernetes: write it as 96, 500m or 960Gi"):
        parse_quantity(text)


@pytest.mark.parametrize(("products", "summed"), [(COUNT, PRODUCT_MEAN_BYTES), (1, 0)])
def test_descriptors_are_made_of_so_many_copies(products, summed):
    vectors = np.random.default_rng(0).standard_normal((COUNT, WIDTH)).astype(np.float32)
    contents = [str(row % products) for row in range(COUNT)]
    wanted = COUNT * WIDTH * (4 * DESCRIPTOR_COPIES + summed)
    assert vectors.nbytes + peak(lambda: compute_descriptors(vectors, contents)) == pytest.approx(wanted, rel=0.05)


def test_captions_are_held_at_so_many_bytes(tmp_path: Path):
    sources = ["generated", "alt", "title", "description"]
    ids = [f"{10**17 + pin}" for pin in range(COUNT) for _ in sources]
    said = [f"{at}, a pair of brown shoes before a wall of old bricks in evening light" for at in range(len(ids))]
    table = pa.table({"pin_id": ids, "source": sources * COUNT, "caption": said})
    tables.write(tmp_path / "captions", [table], table.schema)
    wanted = set(ids)
    found = table.nbytes + peak(lambda: read_captions(tmp_path / "captions", wanted, sources))  # Arrow's is not traced
    assert CAPTION_BYTES / 2 < found / len(ids) < CAPTION_BYTES  # the process takes more than it holds


def test_the_index_of_shards_is_made_in_so_many_bytes(tmp_path: Path, monkeypatch):
    drawn = np.random.default_rng(0).integers(1_000, 1_000_000, (COUNT, 3)).tolist()
    texts = {"split": "train", "view": "0", "kind": "product", "bucket": "1024x1024", "promoted": "0"}
    columns = {name: [text] * COUNT for name, text in texts.items()}
    ids = [f"{10**17 + pin}" for pin in range(COUNT)]
    pq.write_table(pa.table({"pin_id": ids, **columns, "engagement": drawn}), tmp_path / "rows.parquet")

    class Told:
        """Shards of which the table alone is there."""

        def __init__(self, path: Path) -> None:
            self.table = path / "rows.parquet"

    monkeypatch.setattr(rows, "Shards", Told)
    assert peak(lambda: rows.ShardRows(tmp_path)) / COUNT == pytest.approx(INDEX_ROW_BYTES, rel=0.1)


def test_styled_pictures_are_counted_as_they_are_asked_for():
    count = StyleTrialCount(products=3, styles=4, strengths=2, seeds=2, headline_seeds=5)
    wanted = plan_trials([range(4)] * 3, (1.0, 0.5), seeds=2, headline_seeds=5, seed=0)
    assert count.asked == len(wanted)
    assert count.painted == len({one.image_key for one in wanted})


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_judges_see_squares_of_that_side(side):
    assert min(side, JUDGE_SIDE) == choose_view_side(side)


def test_stages_hold_it_on_their_machines(xl, machines):
    rows = compute_stage_memory(xl, machines, denoiser=1, vectors=10)
    classes = read_cluster(CLUSTER).machines
    for row in rows:
        assert load_stage(row.what.partition(",")[0]).machine == row.kind
        own = getattr(classes, row.kind)
        assert (row.machine.cpu, row.machine.memory, row.machine.gpus) == (own.cpu, own.memory, own.gpus)
        assert row.processes == max(1, own.gpus)


def test_what_training_stages_hold_at_full_size(xl, machines):
    rows = {row.what: row for row in compute_stage_memory(xl, machines, denoiser=2_567_478_084, vectors=10_000_000)}
    assert rows["train_uve"].bytes == 250_000 * np.zeros((280, 280, 3), np.uint8).nbytes
    assert rows["train_uve"].share <= 0.5
    assert rows["train_reward"].share <= 0.5
    assert rows["mine_styles"].share <= 0.75  # texts of the pins are beside it
    assert "46% of 960Gi (gpus)" in rows["train_uve"].line()
    assert "too much" not in rows["train_uve"].line()


def test_as_many_pins_of_the_other_splits_are_held(xl, machines):
    few, many, all_there_are = (
        next(
            row.bytes
            for row in compute_stage_memory(xl, machines, denoiser=0, vectors=count)
            if row.what == "mine_styles"
        )
        for count in (1_000, 10_000_000, 1_500_000_000)
    )
    assert few * 10_000 == many
    assert all_there_are == 2 * many


def test_encoded_pins_are_held_by_every_process(xl, machines):
    rows = {row.what: row for row in compute_stage_memory(xl, machines, denoiser=0, vectors=1_000)}
    assert rows["encode"].bytes == 1_000 * 4 * CAPTION_BYTES
    assert rows["train_base, index"].bytes == 1_000 * INDEX_ROW_BYTES
    assert rows["encode"].processes == rows["train_base, index"].processes == machines("gpus").gpus


def test_too_much_is_said(xl, machines):
    small = replace(machines("gpus"), memory="400Gi")
    row = compute_stage_memory(xl, lambda name: small if name == "gpus" else machines(name), denoiser=0, vectors=10)[0]
    assert row.line().endswith(": 110% of 400Gi (gpus), too much")
