from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from canvas.pins.engine import Engine, start_engine
from canvas.sources.showroom.products import Product, load_products
from tests.canvas.showroom_files import write_showroom_files


@pytest.fixture(scope="session")
def showroom_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder data/showroom with painted stand-ins."""
    return write_showroom_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def products(showroom_files: Path) -> tuple[Product, ...]:
    return load_products(showroom_files)


@pytest.fixture(scope="session")
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where copies of the code of public repositories go while tests run."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine that every test of tables shares: Daft takes one a process."""
    engine = Engine(runner="native", ray_address=None, threads=2)
    start_engine(engine)
    return engine
