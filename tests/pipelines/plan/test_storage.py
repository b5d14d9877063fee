"""What stages hold in memory and write to disk: numbers of copies are those that the code makes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from canvas.pins import tables
from canvas.pins.captions import read_captions
from canvas.shards import rows
from canvas.shards.spec import CAPTION_BYTES, INDEX_ROW_BYTES, FeatureSpec
from canvas.styles.clusters import compute_descriptors
from canvas.styles.spec import DESCRIPTOR_COPIES, PRODUCT_MEAN_BYTES
from canvas.train.checkpoint import MAX_CHECKPOINTS
from canvas.train.loop import fit
from components.artifacts import InpaintModel
from lifecycle.declare.graph import load_stages
from lifecycle.declare.stage import Metrics, Output, stage
from pipelines.cluster import parse_quantity
from pipelines.plan.memory import count_parameters
from pipelines.plan.storage import build_checkpoint_rows, build_pin_rows, compute_stage_memory
from tests.canvas.train import subject

COUNT, WIDTH = 5_000, 128


def count_bytes(folder: Path) -> int:
    """Bytes of all tensors in it."""
    return sum(tensor.nbytes for file in folder.rglob("*.safetensors") for tensor in load_file(file).values())


def measure_peak(work: Callable[[], object]) -> int:
    """Bytes that it allocates at most at once."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del result


@pytest.fixture(scope="module")
def memory_of(xl_sections):
    """A function of the cluster, pins and weights: name and time -> what the stage holds."""

    def compute(cluster, pins: int, denoiser: int = 0):
        sizes = {"pins": pins, "weights": {InpaintModel.path: denoiser}}
        rows = compute_stage_memory(load_stages(), xl_sections, cluster, **sizes)
        return {f"{row.stage} {row.when}".strip(): row for row in rows}

    return compute


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
    expected = COUNT * WIDTH * (4 * DESCRIPTOR_COPIES + summed)
    assert vectors.nbytes + measure_peak(lambda: compute_descriptors(vectors, contents)) == pytest.approx(
        expected, rel=0.05
    )


def test_captions_are_held_at_so_many_bytes(tmp_path: Path):
    sources = ["generated", "alt", "title", "description"]
    ids = [f"{10**17 + pin}" for pin in range(COUNT) for _ in sources]
    texts = [f"{at}, a pair of brown shoes before a wall of old bricks in evening light" for at in range(len(ids))]
    table = pa.table({"pin_id": ids, "source": sources * COUNT, "caption": texts})
    tables.write(tmp_path / "captions", [table], table.schema)
    held = table.nbytes  # Arrow's memory is not traced
    held += measure_peak(lambda: read_captions(tmp_path / "captions", set(ids), sources))
    assert CAPTION_BYTES / 2 < held / len(ids) < CAPTION_BYTES  # the process takes more than it holds


def test_the_index_of_shards_is_made_in_so_many_bytes(tmp_path: Path, monkeypatch):
    engagement = np.random.default_rng(0).integers(1_000, 1_000_000, (COUNT, 3)).tolist()
    texts = {"split": "train", "view": "0", "kind": "product", "bucket": "1024x1024", "promoted": "0"}
    columns = {name: [text] * COUNT for name, text in texts.items()}
    ids = [f"{10**17 + pin}" for pin in range(COUNT)]
    pq.write_table(pa.table({"pin_id": ids, **columns, "engagement": engagement}), tmp_path / "rows.parquet")

    class TableOfShards:
        """Shards of which the table alone is there."""

        def __init__(self, path: Path) -> None:
            self.table, self.sizes = path / "rows.parquet", ()

    monkeypatch.setattr(rows, "Shards", TableOfShards)
    assert measure_peak(lambda: rows.ShardRows(tmp_path)) / COUNT == pytest.approx(INDEX_ROW_BYTES, rel=0.1)


def test_stages_hold_it_on_their_machines(memory_of, cluster):
    machine_of = {stage.name: stage.machine for stage in load_stages()}
    for row in memory_of(cluster, pins=10).values():
        assert row.kind == machine_of[row.stage]
        assert row.machine == getattr(cluster.machines, row.kind)
        assert row.processes == max(1, row.machine.gpus)


def test_a_new_stage_needs_no_change_of_the_plan(cluster, xl_sections):
    def estimate(pins: int) -> list[tuple[str, int, str]]:
        return [("", 3 * pins, f"3 x {pins} bytes")]

    @stage(machine="cpu", memory=estimate)
    def count(metrics: Output[Metrics]) -> None:
        """Count pins."""

    (row,) = compute_stage_memory([count], xl_sections, cluster, pins=2**30)
    assert row.format_line() == "  count                          3.0 GiB  3 x 1073741824 bytes: 9% of 32Gi (cpu)"


def test_what_training_stages_hold_at_full_size(memory_of, cluster):
    rows = memory_of(cluster, pins=10_000_000, denoiser=2_567_478_084)
    assert rows["train_uve"].bytes == 250_000 * np.zeros((280, 280, 3), np.uint8).nbytes
    assert rows["train_uve"].share <= 0.5
    assert rows["train_reward"].share <= 0.5
    assert rows["mine_styles"].share <= 0.75  # texts of the pins are beside it
    assert "46% of 960Gi (gpus)" in rows["train_uve"].format_line()
    assert "too much" not in rows["train_uve"].format_line()


def test_as_many_pins_of_the_other_splits_are_held(memory_of, cluster):
    sizes = [memory_of(cluster, pins=count)["mine_styles"].bytes for count in (1_000, 10_000_000, 1_500_000_000)]
    assert sizes[0] * 10_000 == sizes[1]
    assert sizes[2] == 2 * sizes[1]


def test_encoded_pins_are_held_by_every_process(memory_of, cluster):
    rows = memory_of(cluster, pins=1_000)
    assert rows["encode"].bytes == 1_000 * 4 * CAPTION_BYTES
    assert rows["train_base index"].bytes == 1_000 * INDEX_ROW_BYTES
    assert rows["encode"].processes == rows["train_base index"].processes == cluster.machines.gpus.gpus


def test_too_much_is_said(memory_of, cluster):
    small = replace(cluster.machines, gpus=replace(cluster.machines.gpus, memory="400Gi"))
    row = memory_of(replace(cluster, machines=small), pins=10)["train_uve"]
    assert row.format_line().endswith(": 110% of 400Gi (gpus), too much")


def test_bytes_of_a_pin(xl):
    frames = replace(xl.frames, side=64, buckets=((64, 64),))
    small = replace(xl, frames=frames, encode=replace(xl.encode, captions=2, random_masks=1, product_masks=1))
    rows = {name: size for name, _, size in build_pin_rows(small)}
    assert rows["moments"] == torch.zeros(8, 8, 8, dtype=torch.half).nbytes
    assert rows["text states"] == torch.zeros(2, 77, 2048, dtype=torch.half).nbytes
    assert rows["image"] == torch.zeros(768 + 1280, dtype=torch.half).nbytes
    assert rows["masked latents"] == torch.zeros(2, 4, 8, 8, dtype=torch.half).nbytes
    assert rows["total"] == sum(size for name, size in rows.items() if name != "total")
    assert "features" not in rows
    for network, layer, width in (("photographs", 3, 512), ("second", 2, 1664)):
        features = FeatureSpec(network=network, layer=layer, cells=2)
        with_features = build_pin_rows(replace(small, encode=replace(small.encode, features=features)))
        kept = {name: size for name, _, size in with_features}
        assert kept["features"] == torch.zeros(width, 4, 4, dtype=torch.half).nbytes
        assert kept["total"] == rows["total"] + kept["features"]


def test_each_view_of_a_pin_has_all_of_them(xl):
    one, three = (
        {name: size for name, _, size in build_pin_rows(replace(xl, encode=replace(xl.encode, views=views)))}
        for views in (1, 3)
    )
    assert three == one | {"total": 3 * one["total"]}


def test_averages_and_checkpoints_of_a_real_run(tmp_path: Path):
    spec = replace(subject.SPEC, ema=(0.05, 0.1))
    model = subject.denoiser()
    fit(model, subject.denoising, subject.batches(spec), spec, checkpoints=tmp_path, log=subject.unlogged)
    rows = {name: size for name, _, size in build_checkpoint_rows({"train": (spec, count_parameters(model))})}
    averages = count_bytes(tmp_path / "ema")
    assert rows["train, averages"] == averages == 12 / 3 * 2 * 4 * count_parameters(model)
    checkpoints = (count_bytes(tmp_path) - averages) / MAX_CHECKPOINTS * (MAX_CHECKPOINTS + 1)
    assert 0.9 * checkpoints < rows["train, checkpoints"] <= checkpoints  # buffers and counts of steps beside


def test_full_size_averages_fit_a_disk(xl):
    train = xl.resolve(xl.train_base)
    rows = {name: size for name, _, size in build_checkpoint_rows({"train_base": (train, 2_567_463_684)})}
    assert train.checkpoint_every == 5000
    assert rows["train_base, averages"] == 40 * 2 * 2_567_463_684 * 4 < 1e12
