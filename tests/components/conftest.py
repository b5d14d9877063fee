from __future__ import annotations

from pathlib import Path

import pytest

from tests.components.mugs import write_catalogue


@pytest.fixture(scope="session")
def mugs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The painted catalogue, with its truth, to read from."""
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    return folder
