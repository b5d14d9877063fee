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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from lifecycle.declare.graph import map_producers
from lifecycle.declare.stage import Artifact, Dataset, Metrics, Model, Pipeline, Report, Stage
from pipelines.cluster import Cluster, place
from pipelines.emit_dvc import HEADER

KINDS = ((Dataset, "Dataset"), (Model, "Model"), (Metrics, "Metrics"), (Report, "HTML"), (Artifact, "Artifact"))
"""Kind of artifact -> Kubeflow's class. The dashboard shows Metrics and HTML (by type, whatever the file's name)."""


def compiled_pipelines(stages: Sequence[Stage[Any]], cluster: Cluster, tag: str | None = None) -> dict[Pipeline, str]:
    """Name -> compiled YAML of each pipeline that has stages; the same stages give the same bytes.

    With `tag` the image is `<cluster.image>:<tag>`; without it, as in the committed files, `<cluster.image>`.
    """
    image = f"{cluster.image}:{tag}" if tag else cluster.image
    return {
        name: _compile(pipeline(name, stages, cluster, image))
        for name in get_args(Pipeline)
        if any(stage.pipeline == name for stage in stages)
    }


def pipeline(name: Pipeline, stages: Sequence[Stage[Any]], cluster: Cluster, image: str) -> Any:
    """The `dsl.pipeline` of the stages of pipeline `name`, given all stages in order.

    Its parameters: one per params section (JSON text) and one `<path>_uri` per artifact that comes from
    outside: pinned data, and for `promote` what `train` made.
    """
    from kfp import dsl

    own = [stage for stage in stages if stage.pipeline == name]
    outside = imported(own)
    sections = {section for stage in own for section in stage.params}
    assert not sections & outside.keys(), f"params section and artifact share a name: {sections & outside.keys()}"
    makers = map_producers(own)

    def build(**given: Any) -> None:
        sources = {
            artifact: dsl.importer(artifact_uri=given[uri], artifact_class=getattr(dsl, kfp_kind(artifact)))
            .set_display_name(artifact.path)
            .output
            for uri, artifact in outside.items()
        }
        tasks: dict[str, Any] = {}
        for stage in own:
            inputs = {
                argument: tasks[makers[artifact].name].outputs[_argument(makers[artifact], artifact)]
                if artifact in makers
                else sources[artifact]
                for argument, artifact in stage.inputs.items()
            }
            tasks[stage.name] = component(stage, image)(
                **inputs, **{section: given[section] for section in stage.params}
            )
            tasks[stage.name].set_display_name(stage.name)
            if stage.registry:  # what it does in the registry is no output: it must be done each time
                tasks[stage.name].set_caching_options(False)
            place(tasks[stage.name], stage.machine, cluster)

    names = [*sorted(sections), *sorted(outside)]
    return dsl.pipeline(name=f"canvas-{name}")(_with_signature(build, names))


def imported(stages: Iterable[Stage[Any]]) -> dict[str, type[Artifact]]:
    """Parameter name -> each artifact that these stages read and none of them writes."""
    stages = tuple(stages)
    made = map_producers(stages)
    read = {artifact for stage in stages for artifact in stage.inputs.values() if artifact not in made}
    return {uri_parameter(artifact): artifact for artifact in sorted(read, key=lambda artifact: artifact.path)}


def uri_parameter(artifact: type[Artifact]) -> str:
    """The pipeline parameter that says where an artifact from outside lies: `data` -> `data_uri`."""
    return re.sub(r"\W", "_", artifact.path) + "_uri"


def kfp_kind(artifact: type[Artifact]) -> str:
    """The name of the artifact's class in `kfp.dsl`."""
    return next(name for kind, name in KINDS if issubclass(artifact, kind))


def component(stage: Stage[Any], image: str) -> Any:
    """The stage as a lightweight component; `image` holds the project and its environment."""
    from kfp import dsl

    source, file = component_source(stage), f"<component {stage.name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # inspect.getsource reads it
    scope: dict[str, Any] = {"Input": dsl.Input, "Output": dsl.Output}
    scope |= {name: getattr(dsl, name) for _, name in KINDS}
    exec(compile(source, file, "exec", dont_inherit=True), scope)  # annotations must be objects, not text
    return dsl.component(base_image=image, install_kfp_package=False)(scope[stage.name])


def component_source(stage: Stage[Any]) -> str:
    """The function that Kubeflow ships to the task."""
    arguments = [
        *(f"{argument}: Input[{kfp_kind(artifact)}]" for argument, artifact in stage.inputs.items()),
        *(f"{section}: str" for section in stage.params),
        *(f"{argument}: Output[{kfp_kind(artifact)}]" for argument, artifact in stage.outputs.items()),
    ]
    inputs, outputs, sections = (_dict_source(names) for names in (stage.inputs, stage.outputs, stage.params))
    return (
        f"def {stage.name}({', '.join(arguments)}):\n"
        f"    {json.dumps(stage.summary, ensure_ascii=False)}\n"
        f"    from pipelines.component import run_task\n"
        f"    run_task({stage.name!r}, {inputs}, {outputs}, {sections})\n"
    )


def _dict_source(names: Iterable[str]) -> str:
    return "{" + ", ".join(f"{name!r}: {name}" for name in names) + "}"


def _argument(stage: Stage[Any], artifact: type[Artifact]) -> str:
    return next(argument for argument, written in stage.outputs.items() if written is artifact)


def _with_signature(build: Any, names: Iterable[str]) -> Any:
    """`build(**given)` with the explicit string parameters that `dsl.pipeline` reads off a function."""

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


def pipeline_arguments(
    stages: Iterable[Stage[Any]], sections: Mapping[str, Any], uris: Mapping[str, str]
) -> dict[str, str]:
    """What a run of these stages' pipeline is given: their sections as JSON text, and `uris`."""
    read = {section for stage in stages for section in stage.params}
    return {section: json.dumps(sections[section], sort_keys=True) for section in sorted(read)} | dict(uris)
