from __future__ import annotations

from pathlib import Path

import pytest

from tests.canvas.data.showroom_files import write_showroom_files


@pytest.fixture(scope="session")
def showroom_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder data/showroom with painted stand-ins."""
    return write_showroom_files(tmp_path_factory.mktemp("data"))
