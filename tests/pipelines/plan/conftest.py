from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lifecycle.declare.params import load_sections, read_sections
from pipelines.plan.machines import Machine
from pipelines.plan.profile import Run, reader_of
from tests.canvas import tiny

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "pipelines" / "cluster.yaml"
RUN = Run(side=64, gpus=2, batch=3, captions=2, masks=2, views=1, averages=1, lora_rank=2, image_width=24, pins=10)


@pytest.fixture
def unet():
    with torch.device("meta"):
        return tiny.denoiser()


@pytest.fixture
def xl():
    """The reader of canvas-xl's sections."""
    return reader_of(load_sections("canvas-xl", ROOT), "profile canvas-xl")


@pytest.fixture
def machines():
    """The reader of the cluster's machines."""
    cluster = reader_of(read_sections(CLUSTER), "cluster.yaml")
    return lambda name: cluster(f"cluster.machines.{name}", Machine)
