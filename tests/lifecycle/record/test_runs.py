"""Journals in a real MLflow store: everything once, however often and wherever sending is cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lifecycle.record.journal import Journal, close_killed, list_kept_records
from lifecycle.record.runs import ProducerRun, Tracking
from tests.lifecycle.conftest import Project

PIN = {"argument": "raw", "path": "data", "kind": "Dataset", "uri": "data", "digest": "1" * 32 + ".dir"}
MODEL = {"argument": "weights", "path": "models/weights", "kind": "Model", "digest": "2" * 32 + ".dir"}
REPORT = {"argument": "report", "path": "reports/score/report.html", "kind": "Report", "digest": "3" * 32}

PARAMS: dict[str, Any] = {f"train.key_{number}": number for number in range(130)}


@pytest.fixture
def tracking(project: Project) -> Tracking:
    place = project.root / ".mlflow"
    return Tracking.open(f"sqlite:///{place}/mlflow.db", "canvas", (place / "artifacts").as_uri())


def begin_record(
    home: Path,
    stage: str = "train",
    inputs: tuple[dict[str, str], ...] = (PIN,),
    group: str = "",
    params: dict[str, Any] = PARAMS,
) -> Journal:
    journal = Journal(home)
    tags = {"canvas.stage": stage} | {f"digest.in.{item['path']}": item["digest"] for item in inputs}
    part_of = {"key": group, "name": f"run {group}"} if group else None
    journal.event("start", stage=stage, tags=tags, params=params, inputs=list(inputs), group=part_of)
    return journal


def end_record(journal: Journal, *outputs: dict[str, str], status: str = "FINISHED") -> Path:
    journal.event("outputs", outputs=list(outputs))
    journal.event("end", status=status, metrics={"stage.duration_s": 2.5})
    journal.close()
    return journal.folder


def test_skipped_stage_has_its_reason_as_a_tag(project: Project, tracking: Tracking) -> None:
    for reason in (None, "train.train is null, no LoRA is made"):
        journal = begin_record(project.root)
        journal.event("outputs", outputs=[MODEL], skipped=reason)
        journal.event("end", status="FINISHED", metrics={})
        journal.close()
        tracking.send(journal.folder)
    first, second = (run.data.tags for run in runs(tracking))
    assert "canvas.skipped" not in first
    assert second["canvas.skipped"] == "train.train is null, no LoRA is made"


def test_notes_are_one_tag(project: Project, tracking: Tracking) -> None:
    for notes in ([], ["no pin of 'x', so y stood for it", "no board"]):
        journal = begin_record(project.root)
        journal.event("outputs", outputs=[MODEL], skipped=None, notes=notes)
        journal.event("end", status="FINISHED", metrics={})
        journal.close()
        tracking.send(journal.folder)
    first, second = (run.data.tags for run in runs(tracking))
    assert "canvas.notes" not in first
    assert second["canvas.notes"] == "no pin of 'x', so y stood for it; no board"


def runs(tracking: Tracking) -> list[Any]:
    """All runs, oldest first, each as `get_run` gives it: a search leaves out the models that a run read."""
    listed = tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"])
    return [tracking.client.get_run(run.info.run_id) for run in listed]


def losses(tracking: Tracking, run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in tracking.client.get_metric_history(run_id, "loss")]


def test_a_whole_record(tracking: Tracking, tmp_path: Path) -> None:
    journal = begin_record(tmp_path)
    for step in range(1200):
        journal.metrics({"loss": 1 / (step + 1), "precision(blur)": 0.5}, step)
    (tmp_path / "score.html").write_text("<p>")
    journal.keep(tmp_path / "score.html", "reports/score/report.html")
    tracking.send(end_record(journal, MODEL, REPORT))
    (run,) = runs(tracking)
    assert run.info.run_name == "train"
    assert run.info.status == "FINISHED"
    assert run.data.params == {f"train.key_{number}": str(number) for number in range(130)}
    assert run.data.metrics["precision_blur_"] == 0.5
    assert run.data.metrics["stage.duration_s"] == 2.5
    assert losses(tracking, run.info.run_id) == [(step, 1 / (step + 1)) for step in range(1200)]
    assert run.data.tags["digest.in.data"] == PIN["digest"]
    assert run.data.tags["digest.out.reports/score/report.html"] == REPORT["digest"]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("data", PIN["digest"])
    kept = tracking.client.list_artifacts(run.info.run_id, "reports/score")
    assert [file.path for file in kept] == ["reports/score/report.html"]
    assert list_kept_records(tmp_path) == []


def test_whole_runs_compare_by_headline_params_and_images(tracking: Tracking, tmp_path: Path) -> None:
    fetch = begin_record(tmp_path, "fetch", group="G", params={"share": 1, "fetch.long": "x" * 7000})
    train = begin_record(tmp_path, "train", group="G", params={"share": 2, "train.steps": 3})
    Image.new("RGB", (4, 4), "red").save(tmp_path / "sheet.png")
    train.image("samples/a-000020", (tmp_path / "sheet.png").read_bytes())
    train.image("broken", b"no image")
    train.keep(tmp_path / "sheet.png", "reports/train/sheet.png")
    train.event("headline", values={"scene": 0.75})
    for folder in (end_record(fetch), end_record(train)):
        shutil.copytree(folder, tmp_path / "again")
        tracking.send(folder)
        shutil.move(tmp_path / "again", folder)
        tracking.send(folder)
    whole, first, second = sorted(runs(tracking), key=lambda run: ["run G", "fetch", "train"].index(run.info.run_name))
    assert whole.data.params == {"share": "1", "fetch.long": "x" * 6000, "train.share": "2", "train.steps": "3"}
    assert first.data.params["share"] == "1"
    assert second.data.params == {"share": "2", "train.steps": "3"}
    assert whole.data.metrics == {"scene": 0.75}
    assert "scene" not in second.data.metrics
    assert images(tracking, whole) == ["train~sheet+step+0"]
    assert images(tracking, second) == ["samples~a+step+20", "train~sheet+step+0"]
    assert "mlflow.loggedImages" in whole.data.tags


def images(tracking: Tracking, run: Any) -> list[str]:
    """Key and step of each image, without the small copies."""
    files = [Path(file.path).name for file in tracking.client.list_artifacts(run.info.run_id, "images")]
    return sorted(name.partition("+timestamp")[0] for name in files if name.endswith(".png"))


def test_a_live_record_grows(tracking: Tracking, tmp_path: Path) -> None:
    journal = begin_record(tmp_path)
    journal.metrics({"loss": 3.0}, 0)
    tracking.send(journal.folder)
    (run,) = runs(tracking)
    assert run.info.status == "RUNNING"
    assert losses(tracking, run.info.run_id) == [(0, 3.0)]
    journal.metrics({"loss": 2.0}, 1)
    tracking.send(journal.folder)
    tracking.send(journal.folder)
    assert losses(tracking, run.info.run_id) == [(0, 3.0), (1, 2.0)]
    tracking.send(end_record(journal))
    (run,) = runs(tracking)
    assert run.info.status == "FINISHED"


def test_a_model_is_followed_from_its_maker_to_its_reader(tracking: Tracking, tmp_path: Path) -> None:
    tracking.send(end_record(begin_record(tmp_path), MODEL))
    tracking.send(end_record(begin_record(tmp_path, "score", (PIN, {**MODEL, "uri": "models/weights"})), REPORT))
    maker, reader = runs(tracking)
    (made,) = maker.outputs.model_outputs
    assert [model.model_id for model in reader.inputs.model_inputs] == [made.model_id]
    model = tracking.client.get_logged_model(made.model_id)
    assert str(model.status) == "READY"
    assert model.source_run_id == maker.info.run_id
    assert model.tags["canvas.digest"] == MODEL["digest"]


def test_a_killed_record(tracking: Tracking, tmp_path: Path) -> None:
    journal = begin_record(tmp_path)
    journal.metrics({"loss": 3.0}, 0)
    journal.close()
    close_killed(journal.folder)
    tracking.send(journal.folder)
    (run,) = runs(tracking)
    assert run.info.status == "KILLED"
    assert losses(tracking, run.info.run_id) == [(0, 3.0)]


class Cut:
    """An MLflow client whose connection breaks at its call number `after`, before or after the server did it."""

    def __init__(self, client: Any, after: int, done: bool) -> None:
        self.client, self.left, self.done = client, after, done

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        return self._breaking(real) if callable(real) else real

    def _breaking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.done:
                raise ConnectionError("cut before")
            answer = real(*arguments, **named)
            if self.left == 0:
                raise ConnectionError("cut after")
            return answer

        return call


@pytest.mark.parametrize("done", [False, True], ids=["request lost", "answer lost"])
@pytest.mark.parametrize("forgetful", [False, True], ids=["offset kept", "offset lost"])
def test_cut_at_every_call(tracking: Tracking, tmp_path: Path, done: bool, forgetful: bool) -> None:
    tracking.send(end_record(begin_record(tmp_path, group="G"), MODEL))
    journal = begin_record(tmp_path, "score", (PIN, {**MODEL, "uri": "models/weights"}), group="G")
    for step in range(3):
        journal.metrics({"loss": float(step)}, step)
    journal.text("traceback.txt", "none")
    folder = end_record(journal, {**MODEL, "path": "models/other"}, REPORT)
    cuts = 0
    while folder.exists():
        cuts += 1
        try:
            tracking_cut = Tracking(Cut(tracking.client, cuts, done), tracking.experiment)  # type: ignore[arg-type]
            tracking_cut.send(folder)
        except ConnectionError:
            if forgetful:
                (folder / "sent.json").unlink(missing_ok=True)
        assert cuts < 60
    assert cuts > 5
    parent, first, second = sorted(runs(tracking), key=lambda run: ["run G", "train", "score"].index(run.info.run_name))
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.info.run_id}
    assert [run.info.status for run in (parent, first, second)] == ["FINISHED"] * 3
    assert losses(tracking, second.info.run_id) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert [data.dataset.name for data in second.inputs.dataset_inputs] == ["data"]
    assert len(second.inputs.model_inputs) == 1
    assert len(second.outputs.model_outputs) == 1
    assert len(tracking.client.search_logged_models([tracking.experiment])) == 2
    assert [file.path for file in tracking.client.list_artifacts(second.info.run_id)] == ["traceback.txt"]


def test_a_new_server_gets_the_whole_record(tracking: Tracking, tmp_path: Path, empty_store: Path) -> None:
    journal = begin_record(tmp_path)
    journal.metrics({"loss": 3.0}, 0)
    tracking.send(journal.folder)
    shutil.copyfile(empty_store, tmp_path / "second.db")
    second = Tracking.open(f"sqlite:///{tmp_path}/second.db", "canvas", (tmp_path / "second").as_uri())
    second.send(end_record(journal))
    (run,) = runs(second)
    assert losses(second, run.info.run_id) == [(0, 3.0)]


def test_a_run_that_was_deleted_meanwhile(tracking: Tracking, tmp_path: Path) -> None:
    journal = begin_record(tmp_path)
    tracking.send(journal.folder)
    tracking.client.delete_run(runs(tracking)[0].info.run_id)
    tracking.send(end_record(journal))
    assert [run.info.status for run in runs(tracking)] == ["FINISHED"]


@pytest.mark.parametrize(("second", "parent"), [("FINISHED", "FINISHED"), ("FAILED", "FAILED"), ("KILLED", "FAILED")])
def test_stages_of_one_run_hang_under_it(tracking: Tracking, tmp_path: Path, second: str, parent: str) -> None:
    tracking.send(end_record(begin_record(tmp_path, "fetch", group="host:1:2.0"), status="FINISHED"))
    tracking.send(begin_record(tmp_path, "train", group="host:1:2.0").folder)
    top = next(run for run in runs(tracking) if run.info.run_name == "run host:1:2.0")
    assert top.info.status == "RUNNING"
    tracking.send(end_record(begin_record(tmp_path, "score", group="host:1:2.0"), status=second))
    tracking.send(end_record(begin_record(tmp_path, "last", group="host:1:2.0"), status="FINISHED"))
    top = tracking.client.get_run(top.info.run_id)
    assert top.info.status == parent
    below = [run for run in runs(tracking) if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert {run.info.run_name for run in below} == {"fetch", "train", "score", "last"}


def test_what_made_it_is_found_by_content(tracking: Tracking, tmp_path: Path) -> None:
    tracking.send(end_record(begin_record(tmp_path), MODEL))
    tracking.send(end_record(begin_record(tmp_path), MODEL, status="FAILED"))
    tracking.send(end_record(begin_record(tmp_path), {**MODEL, "digest": "4" * 32 + ".dir"}))
    first = runs(tracking)[0].info.run_id
    assert tracking.find_producer("models/weights", MODEL["digest"]) == ProducerRun(
        "train", first, {"data": PIN["digest"]}
    )
    assert tracking.find_producer("models/weights", "5" * 32 + ".dir") is None
    assert tracking.find_producer("models/other", MODEL["digest"]) is None
