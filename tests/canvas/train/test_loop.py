from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from canvas.train.checkpoint import get_step_directory, list_steps, read_checkpoint
from canvas.train.data import Batch
from canvas.train.draws import Draws
from canvas.train.loop import fit
from tests.canvas.train.subject import SPEC, adversarial, batches, denoiser, denoising, run, unlogged

ROOT = Path(__file__).parents[3]


def start(job: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """A process of its own for `job`."""
    command = [sys.executable, "-m", "tests.canvas.train.subject", json.dumps([job])]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def whole_bytes(checkpoints: Path) -> dict[str, bytes]:
    """Every tensor file there, by path."""
    return {str(path.relative_to(checkpoints)): path.read_bytes() for path in checkpoints.rglob("*.safetensors")}


def test_killed_runs_continue_to_the_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = {"steps": 60, "ema": [0.05, 0.1], "accumulate": 2}
    job = {"spec": spec, "dropout": 0.2, "adversary": 10}
    killed, straight = tmp_path / "killed", tmp_path / "straight"

    process = start({**job, "checkpoints": str(killed), "seconds_a_step": 0.02})
    while len(list_steps(killed)) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # in the middle of steps
    assert process.wait() == -signal.SIGKILL
    assert list_steps(killed)[-1] < 30

    process = start({**job, "checkpoints": str(killed), "kill_while_writing": 36})
    assert process.wait() == -signal.SIGKILL  # in the middle of a checkpoint
    assert list_steps(killed)[-1] == 33

    resumed, uninterrupted = (run({**job, "checkpoints": str(place)}) for place in (killed, straight))
    assert resumed.losses == uninterrupted.losses
    assert len(resumed.losses) == 60
    assert whole_bytes(killed) == whole_bytes(straight)
    assert len(whole_bytes(straight)) == 2 * 4 + 20 * 2  # two checkpoints of two players, 20 snapshots of two averages


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run({"checkpoints": str(tmp_path)})
    model, calls = denoiser(), []
    again = fit(model, denoising, batches(), SPEC, checkpoints=tmp_path, log=lambda *logged: calls.append(logged))
    assert again.losses == first.losses
    assert again.images_per_second == first.images_per_second
    assert not calls
    trained = load_file(tmp_path / "step-00000012" / "model.safetensors")
    assert torch.equal(model.stem.weight.detach(), trained["stem.weight"])
    assert model.seen == 12


def test_a_run_ends_when_it_is_stopped_and_goes_on_if_it_is_not(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop(model: nn.Module, step: int) -> bool:
        asked.append(step)
        return step == 6

    fitted = fit(denoiser(), denoising, batches(), SPEC, checkpoints=tmp_path, log=unlogged, stop=stop)
    assert asked == list(range(7))
    assert max(step for step, _ in fitted.losses) <= 6
    whole = run({"checkpoints": str(tmp_path)})
    assert whole.losses == run({"checkpoints": str(tmp_path / "straight")}).losses


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path) -> None:
    first = run({"checkpoints": str(tmp_path)})
    path = get_step_directory(tmp_path, 12) / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="step-00000012 is passed over"):
        assert run({"checkpoints": str(tmp_path)}).losses == first.losses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, r"learning_rate was 0\.01, is 0\.5"),
        ({"steps": 24}, "steps was 12, is 24"),
        ({"ema": (0.1,)}, r"ema was \[\], is \[0\.1\]"),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run({"checkpoints": str(tmp_path)})
    with pytest.raises(ValueError, match=message):
        fit(denoiser(), denoising, batches(), replace(SPEC, **change), checkpoints=tmp_path, log=unlogged)


def test_another_model_is_not_continued(tmp_path: Path) -> None:
    run({"checkpoints": str(tmp_path)})
    model = denoiser()
    model.head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"holds another run \(model was"):
        fit(model, denoising, batches(), SPEC, checkpoints=tmp_path, log=unlogged)


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"accumulate": 8}, {"channels_last": True}])
def test_how_a_step_is_computed_does_not_change_the_loss(tmp_path: Path, change: dict[str, Any]) -> None:
    plain, other = (
        run({"checkpoints": str(tmp_path / name), "spec": spec}) for name, spec in (("a", {}), ("b", change))
    )
    assert [loss for _, loss in other.losses] == pytest.approx([loss for _, loss in plain.losses], abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_and_resumes(tmp_path: Path, precision: str) -> None:
    job = {"checkpoints": str(tmp_path), "spec": {"precision": precision}}
    plain, half = run({"checkpoints": str(tmp_path / "fp32")}), run(job)
    assert [loss for _, loss in half.losses] == pytest.approx([loss for _, loss in plain.losses], rel=0.05)
    assert half.losses != plain.losses
    get_step_directory(tmp_path, 12).rename(tmp_path / "dropped")
    assert run(job).losses == half.losses


def test_compiled_forward_trains_the_same(tmp_path: Path) -> None:
    calls = []

    def objective(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        calls.append(model._compiled_call_impl is not None)
        return (model(batch["pixels"][:, :, 0, 0]) - 0.5).square().mean(), {}

    def losses(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        spec = replace(SPEC, compile=compiled)
        fitted = fit(nn.Linear(3, 3), objective, batches(), spec, checkpoints=tmp_path / str(compiled), log=unlogged)
        return [loss for _, loss in fitted.losses]

    assert losses(True) == pytest.approx(losses(False), abs=1e-5)
    assert calls == [True] * 12 + [False] * 12


def test_frozen_parameters_stay_and_are_not_saved(tmp_path: Path) -> None:
    model = denoiser()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.head.weight.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    spec = replace(SPEC, ema=(0.1,))
    fitted = fit(model, denoising, batches(), spec, checkpoints=tmp_path, log=unlogged)
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == ["head.weight"]
    files, _ = read_checkpoint(get_step_directory(tmp_path, 12))
    assert files["model"].keys() == {"head.weight", "seen"}
    assert files["optimizer"].keys() == {f"head.weight:{key}" for key in ("step", "exp_avg", "exp_avg_sq")}
    assert fitted.snapshots is not None
    assert fitted.snapshots.average(0.1).keys() == {"head.weight"}


def test_nothing_to_train_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Denoiser has nothing to train"):
        fit(denoiser().requires_grad_(False), denoising, batches(), SPEC, checkpoints=tmp_path, log=unlogged)


def poisoned_loss(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss, outputs = denoising(model, batch, draws)
    return loss / (0.0 if draws.step == 7 else 1.0), outputs


def poisoned_gradient(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss, outputs = denoising(model, batch, draws)
    return loss + ((0.0 * loss).sqrt() if draws.step == 7 else 0.0), outputs  # the root's slope at 0 is infinite


@pytest.mark.parametrize(
    ("objective", "message"),
    [(poisoned_loss, "loss is inf at step 8"), (poisoned_gradient, "grad_norm is nan at step 8")],
)
def test_what_is_not_finite_is_named_and_not_saved(tmp_path: Path, objective, message: str) -> None:
    spec = replace(SPEC, log_every=3)
    with pytest.raises(ValueError, match=message) as raised:
        fit(denoiser(), objective, batches(), spec, checkpoints=tmp_path, log=unlogged)
    assert ", ".join(batches()(7, 0, 1)["pin_id"]) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list_steps(tmp_path) == [3, 6]
    for step in (3, 6):
        files, _ = read_checkpoint(get_step_directory(tmp_path, step))
        assert all(tensor.isfinite().all() for tensors in files.values() for tensor in tensors.values())


def test_gradients_are_clipped(tmp_path: Path) -> None:
    def steep(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, _ = denoising(model, batch, draws)
        return 1e4 * loss, {}

    def first_moment(clip_norm: float | None) -> float:
        spec = replace(SPEC, steps=1, warmup_steps=0, checkpoint_every=1, clip_norm=clip_norm)
        place = tmp_path / str(clip_norm)
        fit(denoiser(), steep, batches(), spec, checkpoints=place, log=unlogged)
        moments = load_file(get_step_directory(place, 1) / "optimizer.safetensors")
        return float(torch.stack([m.norm() for name, m in moments.items() if name.endswith(":exp_avg")]).norm())

    assert first_moment(2.0) == pytest.approx(0.1 * 2.0, rel=1e-3)  # 1 - beta1 of the gradient
    assert first_moment(None) > 100


def test_metrics_are_means_over_the_window(tmp_path: Path) -> None:
    logged: dict[int, Mapping[str, float]] = {}
    every, third = replace(SPEC), replace(SPEC, log_every=3)
    single = fit(denoiser(), denoising, batches(), every, checkpoints=tmp_path / "1", log=unlogged)
    fitted = fit(
        denoiser(), denoising, batches(), third, checkpoints=tmp_path / "3", log=lambda m, s: logged.update({s: m})
    )
    losses = [loss for _, loss in single.losses]
    assert list(logged) == [3, 6, 9, 12]
    assert logged[6]["loss"] == pytest.approx(sum(losses[3:6]) / 3)
    assert fitted.losses == [(step, metrics["loss"]) for step, metrics in logged.items()]
    assert logged[3].keys() == {"loss", "noise", "grad_norm", "learning_rate", "images_per_second"}
    assert fitted.images_per_second > 0
    assert fitted.peak_memory_bytes > 1e8


def test_samples_are_drawn_in_eval_mode_and_leave_no_trace(tmp_path: Path) -> None:
    drawn = []

    def sample(model: nn.Module, step: int) -> None:
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in model.modules())
        torch.rand(5)
        drawn.append(step)

    model = denoiser(dropout=0.2)
    frozen_norm = model.blocks[0][0]
    objective = fixed_eval(frozen_norm)
    fitted = fit(model, objective, batches(), SPEC, checkpoints=tmp_path / "a", log=unlogged, sample=sample)
    plain = fit(denoiser(0.2), denoising, batches(), SPEC, checkpoints=tmp_path / "b", log=unlogged)
    assert drawn == [6, 12]
    assert fitted.losses == plain.losses
    assert model.training
    assert not frozen_norm.training


def fixed_eval(module: nn.Module):
    """The denoising objective of a caller who keeps `module` in eval mode, and finds it so at each step."""

    def objective(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert draws.step == 0 or not module.training
        module.eval()
        return denoising(model, batch, draws)

    return objective


def test_adversary_rests_then_trains_on_what_the_model_made(tmp_path: Path) -> None:
    objective, adversary = adversarial(start_step=4)
    critic = {name: parameter.detach().clone() for name, parameter in adversary.model.named_parameters()}
    logged: dict[int, Mapping[str, float]] = {}
    at_rest = []

    def log(metrics: Mapping[str, float], step: int) -> None:
        logged[step] = metrics
        same = [torch.equal(parameter, critic[name]) for name, parameter in adversary.model.named_parameters()]
        at_rest.append(all(same))

    model = denoiser()
    fit(model, objective, batches(), SPEC, checkpoints=tmp_path, log=log, adversary=adversary)
    assert at_rest == [True] * 4 + [False] * 8
    assert "adversary_loss" not in logged[4]
    assert {"adversary_loss", "adversary_margin", "adversary_grad_norm"} < logged[5].keys()
    assert all(parameter.requires_grad for parameter in [*model.parameters(), *adversary.model.parameters()])
    files, _ = read_checkpoint(get_step_directory(tmp_path, 12))
    assert files["adversary_optimizer"]["layers.0.weight:step"] == 8
    assert files["optimizer"]["stem.weight:step"] == 12


def test_adversary_learns_to_tell(tmp_path: Path) -> None:
    objective, adversary = adversarial(start_step=0)
    logged: dict[int, Mapping[str, float]] = {}
    still = replace(SPEC, steps=60, learning_rate=0.0)  # the model stays what it is
    fit(
        denoiser(),
        objective,
        batches(),
        still,
        checkpoints=tmp_path,
        log=lambda metrics, step: logged.update({step: metrics}),
        adversary=replace(adversary, learning_rate=1e-2),
    )
    assert logged[60]["adversary_margin"] > logged[1]["adversary_margin"] + 1
    assert logged[60]["adversary_loss"] < 1 < logged[1]["adversary_loss"]


def test_adversary_is_untouched_by_the_models_gradient(tmp_path: Path) -> None:
    objective, adversary = adversarial(start_step=0)
    seen = []

    def watched(model: nn.Module, batch: Batch, draws: Draws) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen.append([parameter.grad for parameter in model.parameters()])
        return adversary.objective(model, batch, draws)

    other = replace(adversary, objective=watched)
    fit(denoiser(), objective, batches(), SPEC, checkpoints=tmp_path, log=unlogged, adversary=other)
    assert len(seen) == 12
    assert all(gradient is None for gradients in seen for gradient in gradients)


def test_the_callers_random_state_comes_back(tmp_path: Path) -> None:
    model, data = denoiser(), batches()
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    fit(model, denoising, data, SPEC, checkpoints=tmp_path, log=unlogged)
    assert torch.equal(torch.rand(4), expected)
    assert not torch.are_deterministic_algorithms_enabled()
