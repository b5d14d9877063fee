"""What benches share: stages in a folder of their own, runs that take turns, processes, and tables of figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import read_stage_params
from lifecycle.declare.stage import Artifact
from lifecycle.run.ranks import SilentLog
from lifecycle.run.stage import build_arguments

ROOT = Path(__file__).parents[1]


def run_stage(name: str, sections: Mapping[str, Any], folder: Path, source: Path = ROOT) -> dict[str, Any]:
    """Run a stage in this process, without a record, and return its metrics.

    Outputs go below `folder`. Inputs are read from there if an earlier stage wrote them, otherwise from `source`.
    """
    stage = load_stage(name)

    def locate(artifact: type[Artifact]) -> Path:
        path = folder / artifact.path
        return path if path.exists() else source / artifact.path

    inputs = {argument: locate(artifact) for argument, artifact in stage.inputs.items()}
    outputs = {argument: folder / artifact.path for argument, artifact in stage.outputs.items()}
    scratch = folder / "scratch" / name
    for directory in (scratch, *(path.parent for path in outputs.values())):
        directory.mkdir(parents=True, exist_ok=True)
    stage(**build_arguments(stage, read_stage_params(stage, sections), inputs, outputs, scratch, SilentLog()))
    metrics: dict[str, Any] = json.loads(outputs["metrics"].read_text("utf-8")) if "metrics" in outputs else {}
    return metrics


def measure_seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_in_turns(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return `rounds` values of every measure, after a round that warms up.

    All take turns, so that a busy machine slows all of them.
    """
    from tqdm import tqdm

    values: dict[str, list[float]] = {name: [] for name in measures}
    for turn in tqdm(range(rounds + 1), unit="round"):
        for name, measure in measures.items():
            value = measure()
            if turn:
                values[name].append(value)
    return values


def measure_in_subprocess(measure: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Return what `measure` returns in a process of its own, which has a peak memory of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def read_peak_mb() -> float:
    """Return the peak resident memory of this program. `ru_maxrss` would not do: a child starts with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as columns under their keys."""
    import pandas as pd

    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep="-"), end="\n\n", flush=True)
