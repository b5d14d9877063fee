"""For every test: no library reports home, and no test leaves its MLflow to the next."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from lifecycle.record.privacy import disable_telemetry

disable_telemetry()


@pytest.fixture(autouse=True)
def no_mlflow_of_another() -> Iterator[None]:
    """What `mlflow.set_tracking_uri` said goes before the environment's word, for the rest of the process."""
    yield
    if (mlflow := sys.modules.get("mlflow")) is not None and hasattr(mlflow, "set_tracking_uri"):
        mlflow.set_tracking_uri(None)
