"""How long a shop's catalogue takes from its list to a registered candidate, stage by stage.

    python -m bench.catalogue           # 300 photographs at profile tiny
    python -m bench.catalogue 60        # so many

The commands are those of docs/tutorials/your-catalogue.md, in a copy of this tree: `dvc repro report register`, a
process a stage. The photographs are those of tests/catalogue.py, which the showroom does not use: packages hold four
images, so each row is another crop, scale, place and hue of these. A segmenter and a captioner
are trained before the clock starts, as a shop brings its own. Nothing else may run on the machine.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from ruamel.yaml import YAML

from bench.measurement import ROOT, measure_in_subprocess, print_table
from canvas.pins import tables
from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections
from lifecycle.record.privacy import TELEMETRY_OFF
from lifecycle.record.recording import read_metrics
from tests.catalogue import CUT_OUTS, PLACES, read_page_params, train_models, write_catalogue

PHOTOGRAPHS, TARGET = 300, 360.0  # seconds

DURATIONS = """
select tags.value, max(metrics.value) from metrics join tags using (run_uuid)
where metrics.key = 'stage.duration_s' and tags.key = 'canvas.stage' group by tags.value
"""


def write_project(root: Path, photographs: int) -> None:
    """Write a copy of this tree, the catalogue, models and params into the new folder `root`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(source.read_bytes())
    (root / "data.dvc").unlink()  # it pins the showroom's
    write_catalogue(root / "data", photographs)
    measure_in_subprocess(_train_models, root)
    sections = merge_sections(load_sections("tiny", root), read_page_params())
    for section, model in (("train_segmenter", "segmenter"), ("train_captioner", "captioner")):
        sections[section]["init_from"] = f"parts/{model}"
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(dict(sections), file)
    for command in (["git", "init", "-q"], ["dvc", "add", "-q", "data"], ["python", "-m", "lifecycle", "inputs"]):
        subprocess.run(command, cwd=root, env=_environment(), check=True)


def _train_models(root: Path) -> dict[str, float]:
    (root / "parts").mkdir()
    train_models(root / "parts")
    return {}


def time_stages(root: Path) -> dict[str, float]:
    """Run the graph; return the wall seconds of each stage, from DVC's line about it to the next one; the first has
    DVC's own start as well.

    Raises `subprocess.CalledProcessError` where a stage fails.
    """
    command = ["dvc", "repro", "report", "register"]
    starts: dict[str, float] = {}
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Running stage '"):
                starts[line.split("'")[1]] = time.perf_counter()
                print(f"{time.perf_counter() - start:6.1f} s: {line.strip()}", file=sys.stderr)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    begins = [start, *list(starts.values())[1:]]
    ends = [*begins[1:], time.perf_counter()]
    return {stage: end - begin for stage, begin, end in zip(starts, begins, ends, strict=True)}


def read_durations(root: Path) -> dict[str, float]:
    """Return stage -> the seconds of its function, as recorded, without the start of its process."""
    with closing(sqlite3.connect(root / ".mlflow" / "mlflow.db")) as store:
        return dict(store.execute(DURATIONS))


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | TELEMETRY_OFF | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else PHOTOGRAPHS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root, count)
        seconds = time_stages(root)
        total = sum(seconds.values())
        durations = read_durations(root)
        print_table(
            [
                {"stage": stage, "s": wall, "of them in the stage": durations.get(stage)}
                for stage, wall in sorted(seconds.items(), key=lambda item: -item[1])
            ]
        )
        pins, truth = (tables.read(root / "artifacts" / name).num_rows for name in ("pins", "truth"))
        kept = int(read_metrics(root / "reports/filter/metrics.json")["kept"])
        verdict = json.loads((root / "artifacts/verdict.json").read_text(encoding="utf-8"))["outcome"]
        version = json.loads((root / "artifacts/registered.json").read_text(encoding="utf-8"))["canvas-background"]
    stages = [stage.name for stage in load_stages() if stage.pipeline == "train"]
    needing = [name for name in stages if name not in seconds]
    sources = {name for name, _ in PLACES.values()} | set(CUT_OUTS)
    print(f"{count} rows, cut of {len(sources)} images of packages: {pins} pins, {kept} kept")
    print(f"rows of truth: {truth}; stages that did not run: {len(needing)} of {len(stages)} {', '.join(needing)}")
    print(f"candidate version {version['version']}, verdict {verdict}")
    print(f"start of stages, DVC, records: {total - sum(durations.values()):.0f} s")
    print(f"whole graph: {total:.0f} s (target {TARGET:.0f} for {PHOTOGRAPHS})")
    return int(verdict != "pending")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
