"""The wrapper round a stage, in real processes: whole outs or none, one sentence for each mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.record.journal import read_events
from lifecycle.run.stage import format_error
from lifecycle.workspace.digest import digest
from tests.lifecycle.conftest import NOBODY, Project


def run(project: Project, stage: str) -> subprocess.CompletedProcess[str]:
    """Run one stage with tracking switched off, as quick as can be."""
    return project.lifecycle("run", stage, MLFLOW_TRACKING_URI=NOBODY)


def read_complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line about the stage on stderr of a run that failed."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("stage ")]
    assert len(lines) == 1
    return lines[0]


def test_a_stage_fills_its_outs(bare_project: Project) -> None:
    for stage in ("fetch", "train", "score"):
        assert run(bare_project, stage).returncode == 0
    assert bare_project.read("models/weights/model.safetensors") == "12"
    assert json.loads(bare_project.read("reports/train/metrics.json")) == {"total": 12, "first": {"step": 0}}
    assert [path.name for path in (bare_project.root / ".work" / "train").iterdir()] == []


def test_a_second_run_replaces_them(bare_project: Project) -> None:
    run(bare_project, "fetch")
    bare_project.edit("params.yaml", "times: 2", "times: 5")
    (bare_project.root / "artifacts" / "numbers" / "stale").touch()
    run(bare_project, "fetch")
    assert sorted(path.name for path in (bare_project.root / "artifacts" / "numbers").iterdir()) == ["1", "2", "3"]
    assert bare_project.read("artifacts/numbers/3") == "15"


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("train", r"input artifacts/numbers (numbers) is missing: `dvc repro fetch` makes it"),
        ("fetch", r"input data (raw) is missing: data.dvc pins it"),
        ("trian", r"no stage 'trian': components/ has fetch, score, train"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(bare_project: Project, stage: str, says: str) -> None:
    (bare_project.root / "data").rename(bare_project.root / "elsewhere")
    assert read_complaint(run(bare_project, stage)).startswith(f"stage {stage}: {says}")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("times: 2", "time: 2", "params key 'time' in section 'fetch' is unknown (did you mean 'times'?)"),
        ("times: 2", "times: two", "params key 'times' in section 'fetch' is \"two\""),
        ("fetch:", "fecth:", "params section 'fetch' is missing (did you mean 'fecth'?)"),
        ("fetch:", "fetch: [", "params.yaml is not valid YAML"),
    ],
)
def test_a_params_typo(bare_project: Project, old: str, new: str, says: str) -> None:
    bare_project.edit("params.yaml", old, new)
    assert says in read_complaint(run(bare_project, "fetch"))
    assert not (bare_project.root / "artifacts").exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    pass", "it ended without writing artifacts/numbers (argument 'numbers')"),
        ("    raise ValueError('pin 3 has\\n no image')", "stage fetch: pin 3 has no image"),
        ("    open('/nowhere/pin')", "stage fetch: [Errno 2] No such file or directory: '/nowhere/pin'"),
        ("    open('http://me:secret@host/pin')", "No such file or directory: 'http://host/pin'"),
    ],
)
def test_a_stages_own_complaint_is_one_sentence(bare_project: Project, body: str, says: str) -> None:
    run(bare_project, "fetch")
    before = digest(bare_project.root / "artifacts" / "numbers")
    text = bare_project.read("components/fetch.py")
    (bare_project.root / "components" / "fetch.py").write_text(
        text[: text.index("    numbers.path.mkdir")] + body + "\n"
    )
    assert says in read_complaint(run(bare_project, "fetch"))
    assert digest(bare_project.root / "artifacts" / "numbers") == before


def test_a_bug_shows_its_traceback(bare_project: Project) -> None:
    bare_project.edit("components/fetch.py", "numbers.path.mkdir()", "numbers.path.mkdri()")
    done = run(bare_project, "fetch")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "has no attribute 'mkdri'" in done.stderr


def test_times_go_into_the_record_alone(bare_project: Project) -> None:
    run(bare_project, "fetch")
    bare_project.edit("components/train.py", '{{"total"', '{{"seconds": {{"sum": 0.25}}, "total"')
    run(bare_project, "train")
    assert json.loads(bare_project.read("reports/train/metrics.json")) == {"total": 12, "first": {"step": 0}}
    records = (event for folder in bare_project.records() for event, _ in read_events(folder))
    metrics = [event["values"] for event in records if event["event"] == "metrics"]
    assert {"seconds.sum": 0.25} in metrics
    assert {"total": 12.0, "first.step": 0.0} in metrics


@pytest.mark.parametrize("metrics", ["[1]", "{", '{"f1": NaN}', '{"f1": null}', '{"by": {"blur": "high"}}'])
def test_metrics_must_be_numbers(bare_project: Project, metrics: str) -> None:
    run(bare_project, "fetch")
    bare_project.edit(
        "components/train.py", "metrics.path.write_text(", f"metrics.path.write_text('{metrics}') or print("
    )
    assert "stage train: metrics.json" in read_complaint(run(bare_project, "train"))
    assert not (bare_project.root / "models" / "weights").exists()


def test_killed_at_every_file_operation(bare_project: Project) -> None:
    """An out is absent, the whole former one, or the whole new one, whenever the process dies."""
    run(bare_project, "fetch")
    run(bare_project, "train")
    paths = ("models/weights", "reports/train/metrics.json", "reports/train/losses.csv")
    former = {path: digest(bare_project.root / path) for path in paths}
    bare_project.edit("params.yaml", "steps: 3", "steps: 4")
    bare_project.edit("components/train.py", "total = sum(", "total = 1 + sum(")
    done = bare_project.run("python", "-m", "tests.lifecycle.killing", "train")
    assert done.returncode == 0, done.stderr
    moments = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(moments) > 50
    new = moments[-1]
    assert all(new[path] not in (None, former[path]) for path in ("models/weights", "reports/train/losses.csv"))
    losses = (former["reports/train/losses.csv"], new["reports/train/losses.csv"])
    for moment in moments:
        assert moment["models/weights"] in (None, former["models/weights"], new["models/weights"])
        assert moment["reports/train/losses.csv"] in losses
    assert list((bare_project.root / ".work" / "train").iterdir()) == []
    assert not list(bare_project.root.rglob(".partial*"))


def test_a_killed_stage_goes_on_where_it_was(bare_project: Project) -> None:
    run(bare_project, "fetch")
    bare_project.edit("params.yaml", "steps: 3", "steps: 40")
    bare_project.edit("params.yaml", "seconds_a_step: 0.0", "seconds_a_step: 0.05")
    with start_stage(bare_project, "train") as process:
        wait_for(lambda: any((bare_project.root / ".work").glob("train/*/scratch/steps")))
        process.send_signal(signal.SIGKILL)
    assert not (bare_project.root / "models" / "weights").exists()
    assert not (bare_project.root / "reports" / "train" / "metrics.json").exists()
    assert run(bare_project, "train").returncode == 0
    assert json.loads(bare_project.read("reports/train/metrics.json"))["first"]["step"] >= 1


def test_sigterm_ends_it_in_order(bare_project: Project) -> None:
    run(bare_project, "fetch")
    bare_project.edit("params.yaml", "seconds_a_step: 0.0", "seconds_a_step: 30.0")
    with start_stage(bare_project, "train") as process:
        wait_for(lambda: any((bare_project.root / ".work").glob("train/*/outs/weights/weights/model.safetensors")))
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert not list((bare_project.root / ".work").glob("train/*/outs"))
    assert list((bare_project.root / ".work").glob("train/*/scratch"))


def test_a_full_disk(bare_project: Project) -> None:
    run(bare_project, "fetch")
    before = digest(bare_project.root / "artifacts" / "numbers")
    bare_project.edit("components/fetch.py", "str(int(line) * fetch.times)", "'x' * 3_000_000")
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "sys.argv = ['lifecycle', 'run', 'fetch']; runpy.run_module('lifecycle', run_name='__main__')"
    )
    says = read_complaint(bare_project.run("python", "-c", limited, MLFLOW_TRACKING_URI=NOBODY))
    assert says.startswith("stage fetch: no space left to write")
    assert digest(bare_project.root / "artifacts" / "numbers") == before


def test_a_full_disk_in_a_librarys_own_words() -> None:
    from safetensors import SafetensorError

    says = format_error(
        "train", SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    )
    assert says.startswith("stage train: no space left to write: free some")


def test_a_component_of_a_pipeline(bare_project: Project, tmp_path: Path) -> None:
    """As Kubeflow calls it: other paths than the catalogue's, all sections as one string."""
    call = (
        "import json, sys; from lifecycle.run.stage import run_component; "
        "run_component('fetch', {'raw': 'data'}, {'numbers': sys.argv[1]}, json.dumps({'fetch': {'times': 3}}))"
    )
    target = tmp_path / "pipeline" / "run-1" / "numbers"
    done = bare_project.run("python", "-c", call, str(target), MLFLOW_TRACKING_URI=NOBODY)
    assert done.returncode == 0, done.stderr
    assert (target / "3").read_text() == "9"
    done = bare_project.run("python", "-c", call.replace("times", "time"), str(target), MLFLOW_TRACKING_URI=NOBODY)
    assert "params key 'time' in section 'fetch' is unknown" in read_complaint(done)


def test_nothing_heavy_is_imported_before_it_is_needed(bare_project: Project) -> None:
    code = (
        "import sys; from lifecycle.__main__ import main; main(['run', 'fetch']); "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = bare_project.run("python", "-c", code, MLFLOW_TRACKING_URI=NOBODY)
    imported = done.stdout
    assert "'components'" in imported
    for name in ("torch", "mlflow", "dvc", "kfp", "pandas", "numpy", "pyarrow", "daft", "requests"):
        assert f"'{name}'" not in imported


def start_stage(project: Project, stage: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lifecycle", "run", stage]
    return subprocess.Popen(command, cwd=project.root, env=project.environment(MLFLOW_TRACKING_URI=NOBODY))


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)
