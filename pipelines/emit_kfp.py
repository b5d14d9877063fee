"""Kubeflow pipelines from the stages' signatures.

Each stage becomes a real lightweight component, so the compiled file runs on a cluster and, unchanged,
under `kfp.local.SubprocessRunner`. Each params section is one pipeline parameter that holds JSON text:
Kubeflow keeps numbers of a struct as doubles, and a task whose sections did not change is taken from the cache.
"""

from __future__ import annotations

import inspect
import json
import linecache
import re
import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from lifecycle.declare.graph import map_producers
from lifecycle.declare.stage import Artifact, Dataset, Metrics, Model, Pipeline, Report, Stage
from pipelines.cluster import Cluster, place_task
from pipelines.emit_dvc import HEADER

KINDS = ((Dataset, "Dataset"), (Model, "Model"), (Metrics, "Metrics"), (Report, "HTML"), (Artifact, "Artifact"))
"""Kind of artifact -> Kubeflow's class. The dashboard shows Metrics and HTML (by type, whatever the file's name)."""


NO_KEYS: Mapping[str, str] = {}


def compile_pipelines(
    stages: Sequence[Stage[Any]],
    cluster: Cluster,
    tag: str | None = None,
    skipped: Container[str] = (),
    cache_keys: Mapping[str, str] = NO_KEYS,
) -> dict[Pipeline, str]:
    """Return name -> compiled YAML of each pipeline that has stages; the same stages give the same bytes.

    With `tag` the image is `<cluster.image>:<tag>`; without it, as in the committed files, `<cluster.image>`. Stages
    whose names are in `skipped` take no accelerator. `cache_keys`: stage -> by what its task is found in the cache,
    instead of its params and inputs.
    """
    image = f"{cluster.image}:{tag}" if tag else cluster.image
    return {
        name: _compile(build_pipeline(name, stages, cluster, image, skipped, cache_keys))
        for name in get_args(Pipeline)
        if any(stage.pipeline == name for stage in stages)
    }


def build_pipeline(
    name: Pipeline,
    stages: Sequence[Stage[Any]],
    cluster: Cluster,
    image: str,
    skipped: Container[str] = (),
    cache_keys: Mapping[str, str] = NO_KEYS,
) -> Any:
    """Return the `dsl.pipeline` of pipeline `name`, of all stages in order; those `skipped` run on a "cpu" machine.

    Its parameters are each params section (JSON text) and a `<path>_uri` of each artifact that comes from outside:
    pinned data, and for `promote` what `train` made.
    """
    from kfp import dsl

    pipeline_stages = [stage for stage in stages if stage.pipeline == name]
    outside = list_imports(pipeline_stages)
    sections = {section for stage in pipeline_stages for section in stage.params}
    assert not sections & outside.keys(), f"params section and artifact share a name: {sections & outside.keys()}"
    writers = map_producers(pipeline_stages)

    def build(**values: Any) -> None:
        sources = {
            artifact: dsl.importer(artifact_uri=values[uri], artifact_class=getattr(dsl, get_kfp_class(artifact)))
            .set_display_name(artifact.path)
            .output
            for uri, artifact in outside.items()
        }
        tasks: dict[str, Any] = {}
        for stage in pipeline_stages:
            inputs = {
                argument: tasks[writers[artifact].name].outputs[_find_argument(writers[artifact], artifact)]
                if artifact in writers
                else sources[artifact]
                for argument, artifact in stage.inputs.items()
            }
            tasks[stage.name] = build_component(stage, image)(
                **inputs, **{section: values[section] for section in stage.params}
            )
            tasks[stage.name].set_display_name(stage.name)
            if stage.registry:  # what it does in the registry is no output: it must be done each time
                tasks[stage.name].set_caching_options(False)
            elif stage.name in cache_keys:
                tasks[stage.name].set_caching_options(True, cache_keys[stage.name])
            place_task(tasks[stage.name], "cpu" if stage.name in skipped else stage.machine, cluster)

    names = [*sorted(sections), *sorted(outside)]
    return dsl.pipeline(name=f"canvas-{name}")(_add_signature(build, names))


def list_imports(stages: Iterable[Stage[Any]]) -> dict[str, type[Artifact]]:
    """Return pipeline parameter (`data_uri` for `data`) -> artifact that these stages read and none of them writes."""
    stages = tuple(stages)
    writers = map_producers(stages)
    read = {artifact for stage in stages for artifact in stage.inputs.values() if artifact not in writers}
    by_path = sorted(read, key=lambda artifact: artifact.path)
    return {re.sub(r"\W", "_", artifact.path) + "_uri": artifact for artifact in by_path}


def get_kfp_class(artifact: type[Artifact]) -> str:
    """Return the name of the artifact's class in `kfp.dsl`."""
    return next(name for kind, name in KINDS if issubclass(artifact, kind))


def build_component(stage: Stage[Any], image: str) -> Any:
    """Return the stage as a lightweight component; `image` holds the project and its environment."""
    from kfp import dsl

    source, file = format_component(stage), f"<component {stage.name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # inspect.getsource reads it
    scope: dict[str, Any] = {"Input": dsl.Input, "Output": dsl.Output}
    scope |= {name: getattr(dsl, name) for _, name in KINDS}
    exec(compile(source, file, "exec", dont_inherit=True), scope)  # annotations must be objects, not text
    return dsl.component(base_image=image, install_kfp_package=False)(scope[stage.name])


def format_component(stage: Stage[Any]) -> str:
    """Return the source of the function that Kubeflow ships to the task."""
    arguments = [
        *(f"{argument}: Input[{get_kfp_class(artifact)}]" for argument, artifact in stage.inputs.items()),
        *(f"{section}: str" for section in stage.params),
        *(f"{argument}: Output[{get_kfp_class(artifact)}]" for argument, artifact in stage.outputs.items()),
    ]
    inputs, outputs, sections = (_format_dict(names) for names in (stage.inputs, stage.outputs, stage.params))
    return (
        f"def {stage.name}({', '.join(arguments)}):\n"
        f"    {json.dumps(stage.summary, ensure_ascii=False)}\n"
        f"    from pipelines.component import run_task\n"
        f"    run_task({stage.name!r}, {inputs}, {outputs}, {sections})\n"
    )


def _format_dict(names: Iterable[str]) -> str:
    return "{" + ", ".join(f"{name!r}: {name}" for name in names) + "}"


def _find_argument(stage: Stage[Any], artifact: type[Artifact]) -> str:
    return next(argument for argument, written in stage.outputs.items() if written is artifact)


def _add_signature(build: Any, names: Iterable[str]) -> Any:
    """Return `build` with the explicit string parameters that `dsl.pipeline` reads off a function."""

    def function(*values: Any) -> None:
        build(**dict(zip(names, values, strict=True)))

    names = tuple(names)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=str) for name in names]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _compile(definition: Any) -> str:
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(definition, str(file))
        return HEADER + file.read_text(encoding="utf-8")


def build_arguments(
    stages: Iterable[Stage[Any]], sections: Mapping[str, Any], uris: Mapping[str, str]
) -> dict[str, str]:
    """Return the arguments of a run of these stages' pipeline: their sections as JSON text, and `uris`."""
    read = {section for stage in stages for section in stage.params}
    return {section: json.dumps(sections[section], sort_keys=True) for section in sorted(read)} | dict(uris)
