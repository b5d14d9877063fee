"""How fast the filters are, how much memory they need, and how well they find the planted defects.

    python -m bench.filter            # the demo's pins, and a quarter of them
    python -m bench.filter 10000      # so many pins: the demo's are the quarter

The pins are rendered from data/ (`make data`) with the seed of params.yaml. Each run is a process of its own, so that
its peak memory (resident, models included) is its own. It prints tables and writes nothing beside a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measurement import ROOT, measure_in_subprocess, print_table, read_peak_mb, run_stage
from canvas.pins import tables
from canvas.sources.showroom.render import write_showroom
from components.ingest import ingest
from lifecycle.declare.params import load_sections, read_stage_params


def write_pins(count: int | None, folder: Path) -> int:
    """Render `count` pins (None: as many as the demo's) and their truth into `folder`; return how many."""
    params = read_stage_params(ingest, load_sections("demo", ROOT))["ingest"]
    spec = params.showroom if count is None else replace(params.showroom, pins=count)
    artifacts = folder / "artifacts"
    write_showroom(ROOT / "data" / "showroom", spec, params.seed, 2, artifacts / "pins", artifacts / "truth")
    return int(spec.pins)


def write_head(folder: Path, rows: int, target: Path) -> None:
    """Write the first `rows` rows of the tables in `folder` to `target`."""
    for name in ("artifacts/pins", "artifacts/truth"):
        table = tables.read(folder / name).slice(0, rows)
        tables.write(target / name, [table], table.schema)


def measure_filter(folder: Path) -> dict[str, Any]:
    """Run the stage over `folder` in this process; return its metrics, wall and CPU seconds and peak memory."""
    start = time.perf_counter()
    metrics = run_stage("filter", load_sections("demo", ROOT), folder)
    seconds = time.perf_counter() - start
    return metrics | {"wall": seconds, "cpu": time.process_time(), "peak_mb": read_peak_mb()}


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        whole, quarter = Path(name) / "whole", Path(name) / "quarter"
        count = write_pins(int(arguments[0]) if arguments else None, whole)
        write_head(whole, count // 4, quarter)
        runs = [measure_in_subprocess(measure_filter, folder) for folder in (quarter, whole)]
    print_table(
        [
            {
                "pins": run["pins"],
                "pins/s end to end": run["pins"] / run["wall"],
                "cores used": run["cpu"] / run["wall"],  # well below engine.threads: the machine was busy otherwise
                "peak MB": round(run["peak_mb"]),
            }
            for run in runs
        ]
    )
    last = runs[-1]
    print_table([{"filter": name, "pins/s": speed} for name, speed in last["pins_per_second_of"].items()])
    print_table(
        [
            {"planted": defect, "precision": last["precision"].get(defect), "recall": recall}
            for defect, recall in last["recall"].items()
        ]
    )
    print(f"good pins kept: {last['good_pins_kept']:.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
