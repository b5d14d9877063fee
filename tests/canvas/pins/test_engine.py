from __future__ import annotations

import pytest

from canvas.pins.engine import Engine, start_engine
from lifecycle.declare.params import read_section


def test_starting_the_same_engine_again_does_nothing() -> None:
    start_engine(Engine(runner="native", ray_address=None, threads=2))
    start_engine(Engine(runner="native", ray_address=None, threads=2))


def test_another_engine_in_the_same_process_is_refused() -> None:
    start_engine(Engine(runner="native", ray_address=None, threads=2))
    with pytest.raises(ValueError, match="this process already runs another engine"):
        start_engine(Engine(runner="native", ray_address=None, threads=1))


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Ray is not installed: `pip install ray`"):
        start_engine(Engine(runner="ray", ray_address=None, threads=2))


@pytest.mark.parametrize(
    ("address", "threads", "message"),
    [
        (None, 0, "'threads' in section 'engine' is 0: it must be 1 or more"),
        ("ray://head:10001", 2, r"engine\.ray_address is 'ray://head:10001'"),
    ],
)
def test_settings_that_contradict_are_refused(address: str | None, threads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_section(Engine, "engine", {"engine": {"runner": "native", "ray_address": address, "threads": threads}})
