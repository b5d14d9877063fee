"""Stages that train the denoiser, sharded over two processes: they lose, score and save what one process does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from canvas.clip.spec import TextSpec
from canvas.denoiser.lora import LORA_FILE
from canvas.shards.files import Shards
from canvas.train.checkpoint import get_step_directory, read_checkpoint
from lifecycle.declare.params import load_sections, read_section
from tests.canvas.tiny import sdxl_inpaint_pipeline
from tests.canvas.train.two_ranks import run_in_two_ranks
from tests.components.generator_parts import write_encoders, write_random_shards, write_vae
from tests.components.generator_stages import ROOT, run
from tests.components.mugs import write_catalogue
from tests.components.ranked_stages import trained
from tests.components.sidecars import write_sidecars

STAGES = ("train_base", "train_inpaint", "train_backdrop")
WEIGHTS = {"rtol": 0, "atol": 1e-4}
"""How alike weights are: AdamW makes steps of one size of large and of small gradients."""

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sharded": ("train_inpaint", {}),
    "resumed": ("train_backdrop", {}),  # after two steps in one process
    "half": ("train_backdrop", {"precision": "bf16", "accumulate": 2, "channels_last": True}),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three stages in one process, each from what the former made."""
    root = tmp_path_factory.mktemp("alone")
    (root / "artifacts").mkdir()
    write_random_shards(root / "artifacts" / "shards")
    write_vae(root / "models" / "vae")
    for stage in STAGES:
        run(stage, root, **trained(log_every=1))
    return root


CATALOGUE: dict[str, Callable[[bool], dict[str, Any]]] = {
    "encode": lambda many: {"rows_per_shard": 4, "parallel": "ddp" if many else "none"},
    "train_decoder": lambda many: trained(parallel="ddp" if many else "none", log_every=1),
}
"""Stages that read the tables of a catalogue, and how they are run in one process or many."""


def write_tables(root: Path) -> None:
    (root / "artifacts").mkdir()
    write_catalogue(root / "artifacts")
    write_sidecars(root / "artifacts")


@pytest.fixture(scope="module")
def encoded_alone(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue encoded, and a decoder trained on it, in one process."""
    root = tmp_path_factory.mktemp("encoded-alone")
    write_tables(root)
    write_vae(root / "models" / "vae")
    write_encoders(root, read_section(TextSpec, "text", load_sections("tiny", ROOT)))
    (root / "models" / "inpaint").symlink_to(alone / "models" / "inpaint")
    shutil.rmtree(root / "models" / "decoder")
    for stage, changes in CATALOGUE.items():
        run(stage, root, **changes(False))
    return root


@pytest.fixture(scope="module")
def ranked(alone: Path, encoded_alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs by name in two processes, from what they had `alone`."""
    place = tmp_path_factory.mktemp("ranked")
    jobs = []
    for name, (stage, train) in RUNS.items():
        shared = place / name
        shared.mkdir()
        (shared / "artifacts").symlink_to(alone / "artifacts")
        (shared / "inputs").symlink_to(alone / "models")
        changes = trained(**{"log_every": 1, "parallel": "fsdp"} | train)
        jobs.append({"root": str(shared), "stage": stage, "changes": changes})
    take_up(alone, place / "resumed", "train_backdrop")
    catalogue = place / "catalogue"
    (catalogue / "inputs").mkdir(parents=True)
    write_tables(catalogue)
    for model in ("clip", "text", "vae", "inpaint"):
        (catalogue / "inputs" / model).symlink_to(encoded_alone / "models" / model)
    jobs += [{"root": str(catalogue), "stage": stage, "changes": CATALOGUE[stage](True)} for stage in CATALOGUE]
    run_in_two_ranks("tests.components.ranked_stages", json.dumps(jobs))
    return place


def take_up(source: Path, target: Path, stage: str) -> None:
    """The checkpoints of a stage up to step 2 of 4."""
    shutil.copytree(source / "scratch" / stage, target / "scratch" / stage)
    last = list((target / "scratch" / stage).rglob("step-00000004"))
    assert len(last) == 2  # the model and its averages
    for checkpoint in last:
        shutil.rmtree(checkpoint)


def losses_of(root: Path, stage: str) -> list[float]:
    _, state = read_checkpoint(get_step_directory(root / "scratch" / stage / "checkpoints", 4))
    return [loss for _, loss in state["losses"]]


def figures_of(root: Path, stage: str) -> dict[str, Any]:
    return json.loads((root / "reports" / stage / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["sharded", "resumed"])
def test_ranks_lose_and_score_what_one_process_does(alone: Path, ranked: Path, name: str):
    stage = RUNS[name][0]
    losses = losses_of(alone, stage)
    assert len(losses) == 4
    assert losses_of(ranked / name, stage) == pytest.approx(losses, abs=1e-5)
    wanted = figures_of(alone, stage)
    for rank in (ranked / name / "rank-0", ranked / name / "rank-1"):
        metrics = figures_of(rank, stage)
        assert metrics["held_out_losses"] == pytest.approx(wanted["held_out_losses"], abs=1e-4)
        assert [metrics[key] for key in ("pins", "held_out_pins", "average")] == [
            wanted[key] for key in ("pins", "held_out_pins", "average")
        ]


def test_stock_diffusers_loads_what_was_sharded(alone: Path, ranked: Path):
    wanted = UNet2DConditionModel.from_pretrained(alone / "models" / "inpaint" / "unet").state_dict()
    for rank in ("rank-0", "rank-1"):
        folder = ranked / "sharded" / rank / "models" / "inpaint" / "unet"
        assert json.loads((folder / "config.json").read_text())["_class_name"] == "UNet2DConditionModel"
        weights = UNet2DConditionModel.from_pretrained(folder).state_dict()
        for name, weight in weights.items():
            torch.testing.assert_close(weight, wanted[name], **WEIGHTS)


def test_stock_diffusers_loads_a_lora_that_was_sharded(alone: Path, ranked: Path):
    folder = ranked / "resumed" / "rank-0" / "models" / "backdrop_lora"
    wanted, weights = (load_file(path / LORA_FILE) for path in (alone / "models" / "backdrop_lora", folder))
    assert wanted.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], **WEIGHTS)
    pipeline = sdxl_inpaint_pipeline(UNet2DConditionModel.from_pretrained(alone / "models" / "inpaint" / "unet"))
    pipeline.load_lora_weights(folder, adapter_name="backdrop")
    assert sum("lora_" in name for name in pipeline.unet.state_dict()) == len(weights)


def test_one_process_continues_what_ranks_began(alone: Path, ranked: Path, tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "artifacts").symlink_to(alone / "artifacts")
    for model in ("vae", "base"):
        (tmp_path / "models" / model).symlink_to(alone / "models" / model)
    take_up(ranked / "sharded", tmp_path, "train_inpaint")
    assert run("train_inpaint", tmp_path, **trained(log_every=1)).steps == [3, 4]
    assert losses_of(tmp_path, "train_inpaint") == pytest.approx(losses_of(alone, "train_inpaint"), abs=1e-5)


def test_half_precision_trains_and_draws_samples_over_shards(alone: Path, ranked: Path):
    """Weights are gathered in bf16, so samples must be drawn as the training computes."""
    losses = losses_of(alone, "train_backdrop")
    assert losses_of(ranked / "half", "train_backdrop") == pytest.approx(losses, rel=0.01)


def test_ranks_write_the_shards_that_one_process_does(encoded_alone: Path, ranked: Path):
    """The last digits of an encoder's numbers may depend on how many threads it has, so tensors are not compared."""
    one, two = (Shards(root / "artifacts" / "shards") for root in (encoded_alone, ranked / "catalogue"))
    assert one.sizes == two.sizes
    assert pq.read_table(one.table).equals(pq.read_table(two.table))
    for row in range(len(one)):
        torch.testing.assert_close(two[row]["moments"], one[row]["moments"], rtol=0, atol=1e-2)
    figures = json.loads((ranked / "catalogue" / "rank-0" / "reports" / "encode" / "metrics.json").read_text())
    assert figures["views"] == len(one)
    assert not (ranked / "catalogue" / "rank-1" / "reports" / "encode" / "metrics.json").exists()


def test_ranks_paint_and_train_the_decoder_that_one_process_does(encoded_alone: Path, ranked: Path):
    losses = losses_of(encoded_alone, "train_decoder")
    assert losses_of(ranked / "catalogue", "train_decoder") == pytest.approx(losses, rel=1e-3)
    painted = [
        Shards(root / "scratch" / "train_decoder" / "painted" / "shards")
        for root in (encoded_alone, ranked / "catalogue")
    ]
    assert len(painted[0]) == len(painted[1]) > 1
    for row in range(len(painted[0])):
        torch.testing.assert_close(painted[1][row]["latents"], painted[0][row]["latents"], rtol=0, atol=1e-2)
