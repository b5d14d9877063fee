"""Where this process computes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

DEVICE_FILES = Path("/dev")
"""Where the driver of NVIDIA's GPUs has a file for each, `nvidia0` onwards."""


def default_device() -> torch.device:
    """Return this process's GPU, of several that of its LOCAL_RANK under torchrun; the CPU where there is none.

    On a GPU what is left of float32 multiplies in TF32 from then on: ten bits of mantissa, several times as fast.
    """
    if not torch.cuda.is_available():
        if (reason := explain_unusable_gpu()) is not None:
            warnings.warn(f"computing on the CPU: {reason}", stacklevel=2)
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def explain_unusable_gpu() -> str | None:
    """Return why the GPUs of this machine cannot be used, and the fix; None: they can, are hidden, or there is none."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    count = len(list(DEVICE_FILES.glob("nvidia[0-9]*")))
    if torch.cuda.is_available() or hidden or not count:
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        cause = "torch sees none of them"
    except (RuntimeError, AssertionError) as error:
        cause = str(error).split(". ")[0].splitlines()[0].rstrip(".")
    return (
        f"this machine has {count} NVIDIA GPUs that torch {torch.__version__} cannot use ({cause}): bring driver and "
        "torch together, or set CUDA_VISIBLE_DEVICES= to hide them"
    )
