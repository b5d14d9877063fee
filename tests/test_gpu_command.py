"""`make gpu` on a machine without a GPU, and the wheels that it needs."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.gpu import measures, wheels
from bench.gpu.__main__ import add_shares, format_summary, main
from bench.gpu.sheet import draw_sheet
from bench.gpu.workload import Workload

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "make gpu: nothing measured, this machine has no GPU\n"
    assert not (tmp_path / "out").exists()


def test_a_missing_module_comes_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MODULES", {"canvas-test-wheel": "canvas_test_wheel", "torch": "torch"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match=r"has no canvas-test-wheel, nor .* run `make gpu-wheels` first"):
        wheels.unpack_missing(tmp_path, tmp_path / "unpacked")
    with zipfile.ZipFile(tmp_path / "canvas_test_wheel-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("canvas_test_wheel.py", "NAME = 'pure'\n")
    assert wheels.unpack_missing(tmp_path, tmp_path / "unpacked") == ["canvas-test-wheel"]
    import canvas_test_wheel

    assert canvas_test_wheel.NAME == "pure"


def test_the_workload_is_the_profiles_denoiser() -> None:
    workload = Workload.read(ROOT / "profiles" / "small.yaml", demo=ROOT / "params.yaml")
    assert (workload.side, workload.channels, workload.batch_size) == (32, 8, 256)
    assert workload.denoiser.sizes.channels == (256, 512, 768)
    with torch.device("meta"):
        unet = workload.build_denoiser()
    samples = workload.build_samples(8)
    assert samples["moments"].shape == (8, 16, 32, 32)
    assert samples["text_states"].shape[-1] == unet.config["cross_attention_dim"]
    assert samples["text_pooled"].shape == (8, 1, workload.pooled_width)


def test_the_workload_of_two_overlays_is_the_transformer() -> None:
    overlays = (ROOT / "profiles" / name for name in ("small.yaml", "dit.yaml"))
    workload = Workload.read(*overlays, demo=ROOT / "params.yaml")
    assert (workload.denoiser.kind, workload.side, workload.batch_size) == ("dit", 32, 256)
    with torch.device("meta"):
        transformer = workload.build_denoiser()
    assert transformer.config["in_channels"] == 4 * workload.channels
    assert workload.build_samples(8)["text_states"].shape[-1] == transformer.config["joint_attention_dim"]
    assert workload.count_forward_flops() > 1e8


@pytest.fixture(params=["unet", "dit"])
def tiny_workload(request: pytest.FixtureRequest) -> Workload:
    """The denoiser of each family that learns in seconds, at a batch of four."""
    overlays = ["small.yaml"] + ["dit.yaml"] * (request.param == "dit")
    workload = Workload.read(*(ROOT / "profiles" / name for name in overlays), demo=ROOT / "params.yaml")
    return replace(measures.shrink(workload), side=8, channels=4, batch_size=4)


def test_training_sampling_and_sharding_are_measured(tiny_workload: Workload) -> None:
    ours = measures.measure_training(tiny_workload, compiled=False, steps=8)
    assert ours["images_per_second"] > 0
    assert ours["planned_bytes"] > 0
    assert len(ours["losses"]) == 8
    theirs = measures.measure_diffusers(tiny_workload, compiled=False, steps=4)
    assert theirs["images_per_second"] > 0
    assert measures.measure_sampling(tiny_workload, images=2, steps=2)["images_per_second"] > 0
    losses = measures.check_nccl(tiny_workload, {"fsdp": False})
    assert losses["all_reduce"] == [1.0] * 4
    assert losses["fsdp"] == pytest.approx(losses["alone"], rel=0.05)
    figures, targets, sampled = measures.learn_samples(tiny_workload, steps=8)
    assert targets.shape == sampled.shape == (16, 4, 8, 8)
    assert figures["relative_error"] > 0


def test_figures_become_shares_lines_and_a_sheet(tmp_path: Path) -> None:
    figures = {
        "machine": {"gpu": "NVIDIA H100", "peak_flops": 1e15, "matmul_flops": 8e14},
        "training_eager": {"images_per_second": 500.0, "peak_bytes": 2**31, "planned_bytes": 2**31},
        "nccl": {"error": "RuntimeError: no"},
        "tests": {"left_out": "541 seconds were over"},
    }
    add_shares(figures, forward_flops=10**11)
    assert figures["training_eager"]["mfu"] == pytest.approx(0.15)
    assert "500.0 images/s, MFU 15.0%, 2.0 GiB (plan: 2.0)" in format_summary(figures)
    assert "541 seconds were over" in format_summary(figures)
    draw_sheet(figures, torch.zeros(8, 4, 16, 16), None, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").stat().st_size > 1000
