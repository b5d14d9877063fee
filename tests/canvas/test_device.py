from __future__ import annotations

import pytest
import torch

from canvas.device import default_device


@pytest.mark.parametrize(("rank", "place"), [(None, 0), ("0", 0), ("3", 3)])
def test_a_process_has_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch, rank: str | None, place: int):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == torch.device("cuda", place)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
