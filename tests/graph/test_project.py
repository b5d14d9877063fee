"""The committed graphs are those of the stages, and say so when they are not."""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.declare.graph import load_stages
from pipelines.project import build_files, find_drift
from tests.graph.conftest import ROOT, Project
from tests.graph.edges import dvc_edges, kfp_edges, kfp_stages, makers

NEW_STAGE = '''"""Double the mean."""

from components.artifacts import Mean
from lifecycle.declare.stage import Input, Metrics, Output, stage


@stage(pipeline="{pipeline}")
def double(mean: Input[Mean], doubled: Output[Metrics]) -> None:
    """Double the mean."""
    doubled.path.write_text('{{"doubled": 2}}')
'''


def test_committed_graphs_are_those_of_the_stages() -> None:
    stages = load_stages()
    assert find_drift(ROOT, build_files(ROOT, stages)) == [], "run `make graph`"


def committed() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """dvc.yaml, and the specification of each compiled pipeline."""
    compiled = sorted((ROOT / "pipelines/compiled").glob("*.yaml"))
    specifications = [next(yaml.safe_load_all(file.read_text())) for file in compiled]
    return yaml.safe_load((ROOT / "dvc.yaml").read_text()), specifications


def test_both_graphs_have_the_same_stages_and_edges() -> None:
    dvc, pipelines = committed()
    stages = dvc["stages"].keys() - {"code", "outside"}
    assert stages == {stage.name for stage in load_stages()} == set().union(*map(kfp_stages, pipelines))
    assert dvc_edges(dvc) == set().union(*(kfp_edges(pipeline, makers(dvc)) for pipeline in pipelines))


def test_graph_has_no_cycle() -> None:
    dvc, _ = committed()
    after: dict[str, set[str]] = {}
    for before, stage in dvc_edges(dvc):
        after.setdefault(stage, set()).add(before)
    assert set(TopologicalSorter(after).static_order()) >= dvc["stages"].keys() - {"code", "outside"}


def test_planted_drift_is_named_and_mended(toy: Project) -> None:
    assert toy.pipelines("graph", "--check").returncode == 0
    train, old = "pipelines/compiled/train.yaml", "pipelines/compiled/old.yaml"

    toy.write("dvc.yaml", toy.read("dvc.yaml").replace("- artifacts/squares\n", "- artifacts/other\n", 1))
    toy.write(train, toy.read(train) + "# by hand\n")
    toy.write(old, "left: over\n")
    _assert_drift(toy, "dvc.yaml", train, old)

    (toy.root / train).unlink()
    mean = toy.read("components/mean.py")
    _assert_drift(toy, train)
    toy.write("components/mean.py", mean.replace('machine="gpus"', 'machine="gpu"'))
    _assert_drift(toy, train)
    assert toy.pipelines("graph", "--check").returncode == 0
    assert not (toy.root / old).exists()


def _assert_drift(toy: Project, *paths: str) -> None:
    checked = toy.pipelines("graph", "--check")
    assert checked.returncode == 1
    assert checked.stderr.splitlines() == [
        f"{path} has drifted from the stages: run `make graph`" for path in sorted(paths)
    ]
    assert toy.pipelines("graph").returncode == 0


def test_one_new_file_is_a_stage_of_both_graphs(toy: Project) -> None:
    toy.write("components/double.py", NEW_STAGE.format(pipeline="train"))
    toy.pipelines("graph")
    dvc, (train, _) = toy.dvc(), toy.compiled()
    assert dvc["stages"].keys() - {"code"} == kfp_stages(train) == {"square", "mean", "double"}
    assert dvc_edges(dvc) == kfp_edges(train) == {("data", "square"), ("square", "mean"), ("mean", "double")}
    assert dvc["stages"]["double"]["outs"] == ["reports/double"]


def test_a_promote_stage_gets_a_pipeline_of_its_own(toy: Project) -> None:
    assert [file.name for file in _compiled(toy)] == ["train.yaml"]
    toy.write("components/double.py", NEW_STAGE.format(pipeline="promote"))
    toy.pipelines("graph")
    dvc, (train, _), (promote, _) = toy.dvc(), toy.compiled(), toy.compiled("promote")
    assert kfp_stages(train) == {"square", "mean"}
    assert kfp_stages(promote) == {"double"}
    assert promote["root"]["inputDefinitions"]["parameters"].keys() == {"models_mean_uri"}
    assert dvc_edges(dvc) == kfp_edges(train) | kfp_edges(promote, makers(dvc))
    assert {name for name, stage in dvc["stages"].items() if stage.get("frozen")} == {"double"}
    (toy.root / "components/double.py").unlink()
    toy.pipelines("graph")
    assert [file.name for file in _compiled(toy)] == ["train.yaml"]


def test_dvc_repro_leaves_a_promote_stage_alone(repository: Project) -> None:
    repository.write("components/double.py", NEW_STAGE.format(pipeline="promote"))
    repository.pipelines("graph")
    assert "Running stage 'mean'" in repository.ok("dvc", "repro")
    assert not (repository.root / "reports/double/doubled.json").exists()
    assert "Data and pipelines are up to date" in repository.ok("dvc", "repro")


def _compiled(toy: Project) -> list[Path]:
    return sorted((toy.root / "pipelines/compiled").iterdir())


def test_files_are_the_same_in_any_process(toy: Project) -> None:
    command = (sys.executable, "-m", "pipelines", "graph", "--check")
    assert toy.run(*command, PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C").returncode == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("params.yaml", "mean:", "maen:", "params section 'mean' is missing (did you mean 'maen'?)"),
        ("profiles/tiny.yaml", "shared:", "other:\n  x: 1\nshared:", "no stage reads section 'other': remove it"),
        ("profiles/tiny.yaml", "first: 3", "first: 3\n  frist: 3", "params key 'frist' in section 'square' is unknown"),
        ("profiles/tiny.yaml", "first: 3", "first: 3.0", "params key 'first' in section 'square' is 3.0"),
        ("params.yaml", "{digits: 2}", "{digits: two}", "params key 'digits' in section 'mean.rounding' is \"two\""),
    ],
)
def test_wrong_params_stop_the_graph_with_one_sentence(
    toy: Project, file: str, old: str, new: str, sentence: str
) -> None:
    toy.write(file, toy.read(file).replace(old, new, 1))
    done = toy.pipelines("graph")
    assert done.returncode == 1
    assert f"{toy.root / file}: {sentence}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_declaration_is_one_sentence(toy: Project) -> None:
    toy.write("components/mean.py", toy.read("components/mean.py").replace("Output[Mean]", "Output[Squares]"))
    done = toy.pipelines("graph")
    assert done.returncode == 1
    assert done.stderr == ("pipelines graph: stage mean reads and writes ['artifacts/squares']: a cycle of one\n")
