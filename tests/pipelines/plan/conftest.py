from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lifecycle.declare.params import load_sections
from pipelines.cluster import read_cluster
from pipelines.plan.profile import Profile
from tests.canvas import tiny

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "pipelines" / "cluster.yaml"


@pytest.fixture
def unet():
    with torch.device("meta"):
        return tiny.denoiser()


@pytest.fixture(scope="session")
def xl_sections():
    return load_sections("canvas-xl", ROOT)


@pytest.fixture(scope="session")
def xl(xl_sections):
    return Profile.read(xl_sections)


@pytest.fixture
def cluster():
    return read_cluster(CLUSTER)
