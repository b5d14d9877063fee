"""The data engine of every table stage: Daft, on this machine or on a Ray cluster, by one params value."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

from canvas.ranges import Count


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Params section `engine`."""

    runner: Literal["native", "ray"]  # native: this machine; ray: the cluster at ray_address
    ray_address: str | None
    """`ray://host:port` or `auto`; null with runner `ray`: a local Ray. Must be null with runner `native`."""
    threads: Count  # compute threads of the native runner, and of each model that a worker holds

    def __post_init__(self) -> None:
        if self.runner == "native" and self.ray_address is not None:
            raise ValueError(f"engine.ray_address is {self.ray_address!r} but engine.runner is native: set it to ray")


@cache
def start_engine(engine: Engine) -> None:
    """Choose the runner for every Daft frame of this process; a second call with the same engine does nothing.

    Daft locks its runner when the first frame is evaluated, so a stage calls this before it touches one.
    Raises `ValueError` when the process already runs another engine, or when Ray is not installed.
    """
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    if engine.runner == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("engine.runner is ray but Ray is not installed: `pip install ray`, or set it to native")
    import daft
    from daft.exceptions import DaftCoreException

    try:
        if engine.runner == "native":
            daft.set_runner_native(engine.threads)
            daft.set_execution_config(scantask_max_parallel=1)  # else as many files as there are cores are in memory
        else:
            daft.set_runner_ray(engine.ray_address)
    except DaftCoreException as error:
        raise ValueError(f"{engine} cannot start: this process already runs another engine ({error})") from None
