"""The compiled pipelines say what the stages say."""

from __future__ import annotations

import yaml
from kfp import components

from lifecycle.declare.graph import load_stages
from pipelines.cluster import read_cluster
from pipelines.emit_kfp import compile_pipelines
from tests.graph.conftest import ROOT, Project
from tests.graph.test_project import NEW_STAGE


def test_kinds_of_artifacts(toy: Project) -> None:
    specification, _ = toy.compiled()
    made = specification["components"]["comp-square"]["outputDefinitions"]["artifacts"]
    assert {argument: artifact["artifactType"]["schemaTitle"] for argument, artifact in made.items()} == {
        "squares": "system.Dataset",
        "metrics": "system.Metrics",
        "report": "system.HTML",
        "curve": "system.Artifact",
        "sheet": "system.Artifact",
    }
    model = specification["components"]["comp-mean"]["outputDefinitions"]["artifacts"]["model"]
    assert model["artifactType"]["schemaTitle"] == "system.Model"
    importer = specification["deploymentSpec"]["executors"]["exec-importer"]["importer"]
    assert importer == {
        "artifactUri": {"runtimeParameter": "uri"},
        "typeSchema": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
    }


def test_a_task_gets_only_the_sections_it_reads(toy: Project) -> None:
    """Otherwise a change for one stage would take every other stage out of Kubeflow's cache."""
    specification, _ = toy.compiled()
    tasks = specification["root"]["dag"]["tasks"]
    assert specification["root"]["inputDefinitions"]["parameters"].keys() == {"data_uri", "square", "shared", "mean"}
    assert tasks["square"]["inputs"]["parameters"].keys() == {"square", "shared"}
    assert tasks["mean"]["inputs"]["parameters"].keys() == {"mean"}
    for task in tasks.values():
        assert task["cachingOptions"] == {"enableCache": True}
    # The run's id as an argument would differ in every run: no task could come from the cache.
    assert "pipeline_job_uuid" not in toy.read("pipelines/compiled/train.yaml")


def test_component_needs_no_installation(toy: Project) -> None:
    specification, _ = toy.compiled()
    container = specification["deploymentSpec"]["executors"]["exec-mean"]["container"]
    assert container["image"] == "canvas"
    assert "pip install" not in " ".join(container["command"])
    assert container["command"][-1].endswith(
        "def mean(squares: Input[Dataset], mean: str, model: Output[Model], metrics: Output[Metrics]):\n"
        '    "Average the squares into a model."\n'
        "    from pipelines.component import run_task\n"
        "    run_task('mean', {'squares': squares}, {'model': model, 'metrics': metrics}, {'mean': mean})\n\n"
    )


def test_kubeflow_reads_what_was_compiled(toy: Project) -> None:
    loaded = components.load_component_from_file(str(toy.root / "pipelines/compiled/train.yaml"))
    assert loaded.name == "canvas-train"
    assert loaded.component_spec.inputs.keys() == {"data_uri", "square", "shared", "mean"}
    assert not any(parameter.optional for parameter in loaded.component_spec.inputs.values())


def test_a_skipped_stage_takes_no_accelerator() -> None:
    cluster = read_cluster(ROOT / "pipelines" / "cluster.yaml")
    stages = [stage for stage in load_stages() if stage.name in ("train_base", "train_inpaint")]
    text = compile_pipelines(stages, cluster, skipped={"train_base"})["train"]
    executors = next(yaml.safe_load_all(text))["deploymentSpec"]["executors"]
    resources = {
        stage: executors[f"exec-{stage}"]["container"]["resources"] for stage in ("train-base", "train-inpaint")
    }
    assert "accelerator" not in resources["train-base"]
    assert "accelerator" in resources["train-inpaint"]


def test_what_is_done_in_the_registry_is_done_each_time(toy: Project) -> None:
    """From the cache, a second promotion after a rollback would do nothing."""
    source = NEW_STAGE.format(pipeline="promote")
    source = source.replace("import Input", "import Registry, Input").replace(
        "[Metrics])", "[Metrics], registry: Registry)"
    )
    toy.write("components/double.py", source)
    toy.pipelines("graph")
    promote, _ = toy.compiled("promote")
    assert "enableCache" not in promote["root"]["dag"]["tasks"]["double"]["cachingOptions"]
    arguments = promote["components"]["comp-double"]["inputDefinitions"]
    assert arguments == {
        "artifacts": {"mean": {"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}}
    }
