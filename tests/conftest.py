"""For every test: no library reports home, no test leaves its MLflow to the next, and long files come first."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.record.privacy import disable_telemetry

disable_telemetry()

TESTS = Path(__file__).parent

LONGEST = (
    "test_catalogue.py",
    "components/test_ranked_stages.py",
    "components/test_ruined_models.py",
    "lifecycle/registry/test_champion.py",
    "lifecycle/registry/test_registry.py",
    "lifecycle/run/test_ranks.py",
    "canvas/denoiser/test_distributed.py",
    "pipelines/plan/test_command.py",
)
"""Files that take longest, the longest first. Whole files go to the workers of xdist: begun last, one of these would
keep one worker busy for minutes after the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, then those with most tests."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (ranks.get(item.path, len(LONGEST)), -counts[item.path], item.path))


@pytest.fixture(autouse=True)
def no_mlflow_of_another() -> Iterator[None]:
    """What `mlflow.set_tracking_uri` said goes before the environment's word, for the rest of the process."""
    yield
    if (mlflow := sys.modules.get("mlflow")) is not None and hasattr(mlflow, "set_tracking_uri"):
        mlflow.set_tracking_uri(None)
