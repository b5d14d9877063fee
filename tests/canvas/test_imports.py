"""What training and sampling a denoiser imports: nothing of the lifecycle, and on a bare machine no tables either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIFECYCLE = ("mlflow", "dvc", "kfp", "daft")
COMPILED = (
    "pyarrow",
    "pandas",
    "cv2",
    "litdata",
    "pydantic",
    "ruamel",
    "psutil",
    "onnxruntime",
    "sklearn",
    "torchvision",
)

PROGRAM = "import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {modules}"


def run_without(blocked: tuple[str, ...], modules: str) -> None:
    program = PROGRAM.format(blocked=blocked, modules=modules)
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize(
    ("blocked", "modules"),
    [
        (LIFECYCLE, "canvas.denoiser.training, canvas.denoiser.sampling, canvas.inference.pipeline"),
        ((*LIFECYCLE, *COMPILED), "bench.gpu.__main__, bench.gpu.measures, bench.gpu.sheet"),
    ],
)
def test_a_denoiser_trains_and_samples_without(blocked: tuple[str, ...], modules: str) -> None:
    run_without(blocked, modules)


def test_a_blocked_module_is_missed() -> None:
    with pytest.raises(AssertionError, match="No module named 'pyarrow"):
        run_without(("pyarrow",), "canvas.shards.rows")
