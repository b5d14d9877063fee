"""Where this process computes, and the lock under which it loads models."""

from __future__ import annotations

import os
import threading

import torch

LOADING_LOCK = threading.Lock()
"""Held while `from_pretrained` runs. transformers builds a model under switches of the whole process (meta device, no
initial weights): two workers of the data engine that load at once leave one with random weights where they were tied,
and only a report on the console says so."""


def default_device() -> torch.device:
    """Return this process's GPU, of several that of its LOCAL_RANK under torchrun; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
