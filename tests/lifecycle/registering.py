"""Models that runs are recorded for, and that are registered, in a real store: as small as files can be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lifecycle.declare.registry import Decision, ModelVersion, Outcome, Served
from lifecycle.declare.stage import Artifact, Model
from lifecycle.record.journal import Journal
from lifecycle.registry.registry import MlflowRegistry
from lifecycle.workspace.digest import digest


class Base(Model, path="models/base", registered="test-base"):
    """Trained on the data."""

    @classmethod
    def read_sources(cls, folder: Path) -> Mapping[str, Mapping[str, str]]:
        file = folder / "source.json"
        return {"base": json.loads(file.read_text())} if file.is_file() else {}


class Inpaint(Model, path="models/inpaint", registered="test-inpaint"):
    """Trained from the base."""


class Weights(Model, path="models/weights", registered="test-weights"):
    """Made of the others, as the composite of tests/lifecycle/project."""

    composite = True


WHOLE = "test-weights"
KINDS: tuple[type[Model], ...] = (Base, Inpaint, Weights)
SERVED = Served(loader="nowhere", inputs={"prompt": "string"}, outputs={"image": "binary"}, options={})
DATA = {"argument": "data", "path": "data", "kind": "Dataset", "uri": "data", "digest": "d" * 32 + ".dir"}


def write_models(root: Path, content: str) -> dict[type[Model], Path]:
    """A directory for each kind of model; other content, other digest."""
    for kind in KINDS:
        (root / kind.path).mkdir(parents=True, exist_ok=True)
        (root / kind.path / "model.safetensors").write_text(f"{kind.registered} {content}")
    return {kind: root / kind.path for kind in KINDS}


def item(kind: type[Artifact], root: Path) -> dict[str, str]:
    return {"argument": "model", "path": kind.path, "kind": "Model", "uri": "", "digest": digest(root / kind.path)}


def record(home: Path, stage: str, reads: list[dict[str, str]], *wrote: dict[str, str], **params: object) -> None:
    """What a run of `stage` leaves on disk for the tracking store."""
    journal = Journal(home)
    tags = {"canvas.stage": stage, "mlflow.source.git.commit": "5" * 40, "canvas.release": "1.2"}
    tags |= {f"digest.in.{read['path']}": read["digest"] for read in reads}
    journal.event("start", stage=stage, tags=tags, params=params, inputs=reads, group=None)
    journal.metrics({"loss": 0.5}, 3)
    journal.event("outputs", outputs=list(wrote))
    journal.event("end", status="FINISHED", metrics={"stage.duration_s": 1.0})
    journal.close()


def record_training(home: Path, root: Path, steps: int) -> None:
    """base from data, inpaint from base, the composite from inpaint."""
    base, inpaint, weights = (item(kind, root) for kind in KINDS)
    record(home, "train_base", [DATA], base, **{"train_base.steps": steps})
    record(home, "train_inpaint", [base], inpaint, **{"train_inpaint.steps": 2})
    record(home, "assemble", [inpaint], weights)


def open_registry(home: Path) -> MlflowRegistry:
    """The registry of a project whose raw data is in data/."""
    return MlflowRegistry.open(home, ["data"])


def decision(challenger: str, champion: str | None, outcome: Outcome = "pass", *reasons: str) -> Decision:
    return Decision(outcome=outcome, reasons=reasons, challenger=challenger, champion=champion)


def register(
    registry: MlflowRegistry,
    root: Path,
    models: dict[type[Model], Path],
    champion: str | None,
    outcome: Outcome = "pass",
) -> dict[str, ModelVersion]:
    """Register the three with evidence of their evaluation."""
    tables = {name: root / name for name in ("evaluation", "training_statistics")}
    for name, place in tables.items():
        place.mkdir(exist_ok=True)
        (place / "part-00000.parquet").write_text(f"rows of {name}")
    (root / "report.html").write_text("<title>Review</title>")
    (root / "evaluation.json").write_text('{"scene": {"right": 0.75}}')
    return dict(
        registry.register(
            Weights,
            models,
            served=SERVED,
            evidence=tables | {"review.html": root / "report.html"},
            metrics=root / "evaluation.json",
            decision=decision(digest(models[Weights]), champion, outcome, "as it happens"),
        )
    )


def register_trained(
    home: Path, root: Path, content: str, champion: str | None, steps: int = 1
) -> dict[str, ModelVersion]:
    """Models of this content, recorded and registered."""
    models = write_models(root, content)
    record_training(home, root, steps)
    return register(open_registry(home), root, models, champion)
