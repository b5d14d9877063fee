"""One embedding of all tasks against the same trunk trained on one task at a time, and against CLIP's image tower.

    python -m bench.uve                   # on what `make demo` left in artifacts/ and models/, as params.yaml says
    python -m bench.uve FOLDER            # on another folder with artifacts/ and models/

Each embedding is trained with the same steps, batches and seed; alone, a task has all the samples and classes of the
batch to itself. Recall at 1 and at 10 of held-out pins, among each other and in the catalogue, with 95 % intervals. It
prints a table and writes nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.measurement import ROOT, print_table, run_stage
from lifecycle.declare.params import load_sections


def measure_recall(source: Path, tasks: Mapping[str, float]) -> dict[str, Any]:
    """Train the embedding on tasks of these weights; return the stage's metrics."""
    sections = load_sections("demo", ROOT)
    sections["train_uve"]["tasks"] = dict(tasks)
    with tempfile.TemporaryDirectory() as folder:
        return run_stage("train_uve", sections, Path(folder), source)


def build_row(name: str, task: str, figures: Mapping[str, Any]) -> dict[str, object]:
    def format_recall(group: str, k: int) -> str:
        recalls, key = figures[task][group], f"recall_at_{k}"
        return (
            f"{recalls[key]:.3f} [{recalls[f'{key}_low']:.3f}, {recalls[f'{key}_high']:.3f}]" if key in recalls else "-"
        )

    return {
        "embedding": name,
        "task": task,
        "queries": figures[task]["held_out"]["queries"],
        "recall@1 among held-out pins": format_recall("held_out", 1),
        "recall@10": format_recall("held_out", 10),
        "recall@1 in the catalogue": format_recall("catalogue", 1),
        "recall@10 there": format_recall("catalogue", 10),
    }


def main(arguments: list[str]) -> None:
    source = Path(arguments[0]) if arguments else ROOT
    tasks = load_sections("demo", ROOT)["train_uve"]["tasks"]
    together, rows = measure_recall(source, tasks), []
    for task in tasks:
        alone = measure_recall(source, {other: float(other == task) for other in tasks})
        rows += [
            build_row("all tasks", task, together["uve"]),
            build_row("all tasks, binary", task, together["uve_code"]),
            build_row("this task alone", task, alone["uve"]),
            build_row("CLIP's image tower", task, together["clip"]),
        ]
    print_table(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
