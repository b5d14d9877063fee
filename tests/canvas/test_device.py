from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canvas import device
from canvas.device import default_device, explain_unusable_gpu
from canvas.train.distributed import RANK_TIMEOUT, get_group_options, join_world


@pytest.fixture
def old_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight GPUs that torch cannot use."""
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(8))):
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "DEVICE_FILES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_processes_do_not_quietly_compute_on_the_cpu(old_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    sentence = "8 processes would compute on the CPU: this machine has 8 NVIDIA GPUs that torch .* cannot use"
    with pytest.raises(ValueError, match=sentence), join_world("ddp"):
        pass
    assert not torch.distributed.is_initialized()


def test_one_process_warns_and_hidden_gpus_are_none(old_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="computing on the CPU: .* bring driver and torch together"):
        assert default_device() == torch.device("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert explain_unusable_gpu() is None


def test_groups_know_their_device_and_wait_long() -> None:
    gpu = torch.device("cuda", 3)
    assert get_group_options(gpu) == {"backend": "nccl", "timeout": RANK_TIMEOUT, "device_id": gpu}
    assert get_group_options(torch.device("cpu")) == {"backend": "gloo", "timeout": RANK_TIMEOUT}


@pytest.mark.parametrize(("rank", "place"), [(None, 0), ("0", 0), ("3", 3)])
def test_a_process_has_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch, rank: str | None, place: int):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    before = torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == torch.device("cuda", place)
    assert torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
