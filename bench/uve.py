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
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.filter import SilentLog, print_table

ROOT = Path(__file__).parents[1]


def measure_recall(folder: Path, scratch: Path, weights: Mapping[str, float]) -> dict[str, Any]:
    """Train the embedding on tasks of these weights: what the stage's metrics say."""
    import json

    from canvas.uve.spec import TaskWeights
    from components.train_uve import train_uve
    from lifecycle.declare.params import load_sections, read_stage_params
    from lifecycle.declare.stage import Input, Output, Scratch

    params = read_stage_params(train_uve, load_sections("demo", ROOT))
    params["train_uve"] = replace(params["train_uve"], tasks=TaskWeights(**weights))
    scratch.mkdir()
    train_uve(
        **params,
        **{name: Input(folder / artifact.path) for name, artifact in train_uve.inputs.items()},
        **{name: Output(scratch / Path(artifact.path).name) for name, artifact in train_uve.outputs.items()},
        log=SilentLog(),
        scratch=Scratch(scratch / "checkpoints"),
    )
    figures: dict[str, Any] = json.loads((scratch / "uve.json").read_text(encoding="utf-8"))
    return figures


def build_row(name: str, task: str, figures: Mapping[str, Any]) -> dict[str, object]:
    def told(candidates: str, k: int) -> str:
        found, key = figures[task][candidates], f"recall_at_{k}"
        return f"{found[key]:.3f} [{found[f'{key}_low']:.3f}, {found[f'{key}_high']:.3f}]" if key in found else "-"

    return {
        "embedding": name,
        "task": task,
        "queries": figures[task]["held_out"]["queries"],
        "recall@1 among held-out pins": told("held_out", 1),
        "recall@10": told("held_out", 10),
        "recall@1 in the catalogue": told("catalogue", 1),
        "recall@10 there": told("catalogue", 10),
    }


def main(arguments: list[str]) -> None:
    from components.train_uve import train_uve
    from lifecycle.declare.params import load_sections, read_stage_params

    folder = Path(arguments[0]) if arguments else ROOT
    tasks = read_stage_params(train_uve, load_sections("demo", ROOT))["train_uve"].tasks.to_dict()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        whole = measure_recall(folder, Path(name) / "all", tasks)
        for task in tasks:
            alone = measure_recall(folder, Path(name) / task, {other: float(other == task) for other in tasks})
            rows += [
                build_row("all tasks", task, whole["uve"]),
                build_row("all tasks, binary", task, whole["uve_code"]),
                build_row("this task alone", task, alone["uve"]),
                build_row("CLIP's image tower", task, whole["clip"]),
            ]
    print_table(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
