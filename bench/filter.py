"""How fast the filters are, what they hold in memory, and how well they find the planted defects.

    python -m bench.filter            # the demo's pins, and a quarter of them
    python -m bench.filter 10000      # so many pins: the demo's are the quarter

The pins are rendered from data/ (`make data`) with the seed of params.yaml. Each run is a process of its own, so that
its peak memory (resident, models included) is its own. It prints tables and writes nothing beside a temporary folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class SilentLog:
    """A record of steps that nobody keeps."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, name: str, png: bytes) -> None: ...


def write_pins(count: int | None, folder: Path) -> int:
    """Render `count` pins (None: as many as the demo's) and their truth into `folder`; returns how many."""
    from canvas.pins import tables
    from canvas.sources.showroom.render import load_showroom, render_pins
    from components.ingest import ingest
    from lifecycle.declare.params import load_sections, read_stage_params

    params = read_stage_params(ingest, load_sections("demo", ROOT))["ingest"]
    spec = params.showroom if count is None else replace(params.showroom, pins=count)
    showroom = load_showroom(ROOT / "data" / "showroom", spec, params.seed)
    with (
        tables.Writer(folder / "pins", tables.PINS) as pins,
        tables.Writer(folder / "truth", tables.TRUTH) as truth,
    ):
        for rows in render_pins(showroom, threads=2):
            pins.add(rows.pins)
            truth.add(rows.truth)
    return spec.pins


def write_head(folder: Path, rows: int, into: Path) -> None:
    """The first `rows` rows of the tables in `folder`."""
    from canvas.pins import tables

    for name in ("pins", "truth"):
        table = tables.read(folder / name).slice(0, rows)
        tables.write(into / name, [table], table.schema)


def measure_filter(folder: Path) -> dict[str, Any]:
    """Run the stage over `folder` in this process: its metrics, wall seconds and peak memory."""
    from components.filter import filter
    from lifecycle.declare.params import load_sections, read_stage_params
    from lifecycle.declare.stage import Input, Output

    params = read_stage_params(filter, load_sections("demo", ROOT))
    places: dict[str, Any] = {name: Output(folder / f"out_{name}") for name in filter.outputs}
    places |= {name: Input(folder / name) for name in filter.inputs}
    started = time.perf_counter()
    filter(**params, **places, log=SilentLog())
    seconds = time.perf_counter() - started
    figures: dict[str, Any] = json.loads(places["metrics"].path.read_text())
    return figures | {"wall": seconds, "cpu": time.process_time(), "peak_mb": read_peak_mb()}


def read_peak_mb() -> float:
    """Peak resident memory of this program. `ru_maxrss` would not do: a child starts with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure_in_subprocess(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.filter", "--measure", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Rows under the keys of the first, as columns."""
    lines = [list(rows[0]), *([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    print(flush=True)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measure_filter(Path(arguments[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        whole, quarter = Path(name) / "whole", Path(name) / "quarter"
        count = write_pins(int(arguments[0]) if arguments else None, whole)
        write_head(whole, count // 4, quarter)
        runs = [measure_in_subprocess(quarter), measure_in_subprocess(whole)]
    print_table(
        [
            {
                "pins": r["pins"],
                "pins/s end to end": r["pins"] / r["wall"],
                "cores used": r["cpu"] / r["wall"],  # well below engine.threads: the machine was busy with other things
                "peak MB": round(r["peak_mb"]),
            }
            for r in runs
        ]
    )
    print_table([{"filter": name, "pins/s": speed} for name, speed in runs[1]["pins_per_second_of"].items()])
    rates = [(defect, runs[1]["precision"].get(defect), recall) for defect, recall in runs[1]["recall"].items()]
    print_table([{"planted": defect, "precision": precision, "recall": recall} for defect, precision, recall in rates])
    print(f"good pins kept: {runs[1]['good_pins_kept']:.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
