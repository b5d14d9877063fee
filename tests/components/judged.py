"""A project whose models, evaluation and ratings are as a test wants them: real tables, a real store, no training."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from canvas.pins.tables import EVALUATION, JUDGMENTS, TRAINING_STATISTICS, read, write
from components import artifacts
from evaluation.generator.comparison import select_model
from evaluation.generator.metrics import compute_model_metrics
from lifecycle.declare.graph import load_stage
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections
from lifecycle.declare.stage import Artifact, Model
from lifecycle.run.stage import run_stage
from lifecycle.workspace.digest import digest
from tests.evaluation.test_gates import painted
from tests.lifecycle.registering import DATA, item, record

ROOT = Path(__file__).parents[2]
KINDS = tuple(load_stage("register").inputs[name] for name in load_stage("register").inputs)
MODELS: tuple[type[Model], ...] = tuple(kind for kind in KINDS if issubclass(kind, Model))


@dataclass(frozen=True)
class Judged:
    """The project at `root`, which is the working directory."""

    root: Path

    def run(self, *names: str, changes: Mapping[str, Any] | None = None) -> None:
        """Run stages of the project as DVC would, with profile tiny and its `changes`."""
        sections = merge_sections(load_sections("tiny", ROOT), changes or {})
        (self.root / "params.yaml").write_text(json.dumps(sections))  # for commands
        for name in names:
            stage = load_stage(name)
            inputs = {argument: Path(artifact.path) for argument, artifact in stage.inputs.items()}
            outputs = {argument: Path(artifact.path) for argument, artifact in stage.outputs.items()}
            run_stage(stage, sections, inputs, outputs, send=False)

    def read(self, artifact: Any) -> Any:
        return json.loads((self.root / artifact.path).read_text())

    def train(self, content: str, real: Collection[type[Model]] = ()) -> str:
        """Models of this content, with records of the runs that made them; the digest of the composite. The `real`
        ones are there already."""
        for kind in MODELS:
            if kind in real:
                continue
            (self.root / kind.path).mkdir(parents=True, exist_ok=True)
            (self.root / kind.path / "model.safetensors").write_text(f"{kind.path} {content}")
        parts = [item(kind, self.root) for kind in MODELS if kind is not artifacts.CanvasModel]
        record(self.root, "train", [DATA], *parts, **{"train_base.steps": content})
        record(self.root, "assemble", parts, item(artifacts.CanvasModel, self.root))
        return digest(self.root / artifacts.CanvasModel.path)

    def evaluate(self, challenger: str, shift: float, changed: float = 0.0, failed: float | None = None) -> None:
        """What the stage `evaluate` says: scores of the challenger, `shift` better than a model's as it is, with a
        byte of a product's core `changed`; the champion's pictures are those that it was registered with. One image's
        certificate has `failed`, or not; None: there are none."""
        rows = [*_scored("challenger", challenger, shift), *_scored("paste", None, -0.2)]
        rows[7]["core_max_abs_diff"] = changed
        for row in rows[:80:2] if failed is not None else ():
            row["certificates_failed"] = 0.0
        rows[6]["certificates_failed"] = failed
        known = self.root / artifacts.Champion.path / "evaluation"
        if known.is_dir():
            rows += [row | {"model": "champion"} for row in select_model(read(known).to_pylist(), "challenger")]
        self.write(artifacts.Evaluation, rows, EVALUATION)
        learnt_from = {"pin_id": "p1", "sharpness": 0.5, "brightness": 0.5, "clipped": 0.0, "entropy": 6.0}
        self.write(artifacts.TrainingStatistics, [learnt_from], TRAINING_STATISTICS)
        figures = {model: compute_model_metrics(select_model(rows, model)) for model in ("challenger", "paste")}
        (self.root / artifacts.EvaluationMetrics.path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / artifacts.EvaluationMetrics.path).write_text(
            json.dumps({**figures, "drift": {"share": 0.25}, "judge": {"scene_accuracy_real": 0.95}})
        )

    def rate(self, judgments: Sequence[dict[str, Any]]) -> None:
        """What people say, in place of what they said."""
        self.write(artifacts.Ratings, judgments, JUDGMENTS)

    def write(self, table: type[Artifact], rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """A table in place of what was there."""
        place = self.root / table.path
        if place.exists():
            shutil.rmtree(place)
        write(place, [pa.Table.from_pylist(list(rows), schema=schema)], schema)


def empty(root: Path) -> Judged:
    """A project in which nothing was trained, rated or promoted."""
    artifacts.Champion.write_empty(root / artifacts.Champion.path)
    sheet = root / artifacts.AlignmentSheet.path
    sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.write_bytes(_png("paste", 0))
    project = Judged(root)
    project.rate([])
    return project


def _scored(model: str, content: str | None, shift: float) -> list[dict[str, Any]]:
    return [
        row
        | {
            "pin_id": f"p{index // 8}",
            "prompt": f"in the {row['scene']}",
            "digest": content,
            "image": _png(model, index),
            "mask_size": "medium",
            "aspect": "square",
            "erosion": 0.05,
            "seam_ratio": 1.0,
            "scene_right": float(row["reward_overall"] > 0.3),
            "agreement": row["reward_overall"],
            "diversity": 3.0,
            "defective": 0.0,
        }
        for index, row in enumerate(painted(model, content or model, shift))
    ]


def _png(model: str, index: int) -> bytes:
    file = io.BytesIO()
    colour = {"challenger": (60, 120, index), "paste": (200, 200, index)}[model]
    Image.new("RGB", (12, 16), colour).save(file, "png")
    return file.getvalue()
