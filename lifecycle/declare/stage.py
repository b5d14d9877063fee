"""A stage is one typed function: its signature is the only list of its parameters, inputs and outputs.

From it come the `dvc.yaml` stage, the Kubeflow component, the MLflow record and the strict reading of
`params.yaml`, so the four cannot drift apart. A wrong declaration fails where it is written.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args, get_origin, get_type_hints


class Artifact:
    """Something that a stage writes. A subclass names its place; its docstring is its schema.

    `path` is relative to the project's root, in POSIX form. `pinned` marks what no stage writes because
    `<path>.dvc` pins it by hash.
    """

    path: ClassVar[str]
    pinned: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        path = cls.__dict__.get("path")
        if path is None:
            return  # a kind of artifact, not an artifact
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise TypeError(f"{cls.__name__}.path must be a path relative to the project's root, not {path!r}")
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring that says what {path} holds")


class Dataset(Artifact):
    """A table: a directory of Parquet parts, or another directory of data."""


class Model(Artifact):
    """A directory of safetensors and configs that the stock library of its kind loads."""

    registered: ClassVar[str | None] = None
    """Name of its registered model in MLflow."""


class Metrics(Artifact):
    """A JSON object of numbers (nested objects allowed): `dvc metrics` and KFP's Metrics show it."""


class Report(Artifact):
    """One self-contained HTML page."""


class Site(Artifact):
    """A directory of HTML pages, `index.html` inside."""


class Plot(Artifact):
    """A CSV table that `dvc plots` draws."""

    x: ClassVar[str]
    y: ClassVar[str | tuple[str, ...]]
    template: ClassVar[str] = "linear"


class Picture(Artifact):
    """One PNG."""


A = TypeVar("A", bound=Artifact)
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Input(Generic[A]):
    """Where a stage reads artifact A."""

    path: Path


@dataclass(frozen=True, slots=True)
class Output(Generic[A]):
    """Where a stage writes artifact A: a path that does not exist yet, in a directory that does."""

    path: Path


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory that outlives a killed run and is handed to the next run with the same parameters,
    inputs and code: checkpoints live here. It is removed when the stage succeeds."""

    path: Path


class StepLog(Protocol):
    """What a stage tells the run's record while it works."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""

    def picture(self, name: str, png: bytes) -> None:
        """Record an encoded PNG as artifact `pictures/<name>.png`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What is recorded of how an artifact's content came to be, back to the raw data."""

    artifacts: Mapping[str, str]
    """Path -> digest of all that led to it, itself included."""
    params: Mapping[str, Any]
    """`section.key` -> value, of every stage on the way."""
    runs: Mapping[str, str]
    """Path -> address of the run that wrote it, in the tracking server's pages."""
    tree: tuple[str, ...]
    """The same as text, a line an artifact, with the runs' ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    version: str
    digest: str


Outcome = Literal["pass", "fail", "pending"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What the gates say of a challenger."""

    outcome: Outcome
    reasons: tuple[str, ...]
    challenger: str
    """Digest of the model that was judged."""
    champion: str | None
    """Digest of the one that it was compared with; None: there was none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """A move of the champion, as it stands in the registry's history."""

    kind: Literal["promote", "rollback"]
    before: str | None
    """Version of the composite that was champion; None: none was."""
    after: str | None
    who: str
    when: str
    """UTC, ISO 8601."""
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """How a composite model answers requests: column or option -> its type ("binary", "string", "long", "double";
    "binary[]": several; "string?": the column may be left out)."""

    loader: str
    """Module with `_load_pyfunc(path)`, which gives an object with `predict(frame, params)`."""
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    options: Mapping[str, tuple[str, Any]]
    """Option -> type and what it is when not given."""


class Registry(Protocol):
    """The registered models. All raise `ValueError` in one sentence when the registry does not answer."""

    def origin(self, artifact: type[Artifact], digest: str) -> Origin:
        """How content `digest` of `artifact` was made, as far as it is recorded."""

    def register(
        self,
        whole: type[Model],
        models: Mapping[type[Model], Path],
        *,
        served: Served,
        evidence: Mapping[str, Path],
        metrics: Path,
        decision: Decision,
    ) -> Mapping[str, ModelVersion]:
        """Make a version of every model, or find the one that holds the same content, and point `candidate` at
        them; name -> version. `whole`, one of `models`, is the composite of the others: it is stored with its files
        and `evidence` (name -> file or directory; the tables `evaluation` and `training_statistics` among them), has
        the numbers of a Metrics file, and can be loaded and asked as `served` says."""

    def promote(self, version: ModelVersion, decision: Decision, why: str) -> Promotion:
        """Make a composite and all that was registered with it the champion, all together or none.

        `ValueError` naming the reason if the decision is no `pass`, is about another model or another champion, or
        a part was trained on another parent than the one that would be champion with it.
        """


Machine = Literal["small", "cpu", "memory", "gpu", "gpus"]
"""The class of machine that a stage needs on a cluster; `pipelines/cluster.yaml` says what each is."""

Pipeline = Literal["train", "promote"]


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A declared stage; calling it calls its function."""

    function: Callable[P, None]
    params: Mapping[str, type]
    inputs: Mapping[str, type[Artifact]]
    outputs: Mapping[str, type[Artifact]]
    log: str | None
    scratch: str | None
    registry: str | None
    machine: Machine
    pipeline: Pipeline

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def module(self) -> str:
        return self.function.__module__

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        self.function(*args, **kwargs)


def stage(*, machine: Machine = "small", pipeline: Pipeline = "train") -> Callable[[Callable[P, None]], Stage[P]]:
    """Declare the decorated function as a stage.

    Each argument is one of: a frozen dataclass (the section of `params.yaml` with the argument's name),
    `Input[Artifact]`, `Output[Artifact]`, `StepLog`, `Scratch`, `Registry`. Anything else is a `TypeError`, as is a
    params dataclass with a default (params.yaml holds every value) or a stage that writes nothing.
    """

    def declare(function: Callable[P, None]) -> Stage[P]:
        name = function.__name__
        params: dict[str, type] = {}
        inputs: dict[str, type[Artifact]] = {}
        outputs: dict[str, type[Artifact]] = {}
        services: dict[type, str] = {}
        hints = get_type_hints(function)
        hints.pop("return", None)
        if undeclared := inspect.signature(function).parameters.keys() - hints.keys():
            raise TypeError(f"stage {name}: annotate {sorted(undeclared)}; the signature is the declaration")
        for argument, hint in hints.items():
            origin = get_origin(hint)
            if origin in (Input, Output):
                artifact = get_args(hint)[0]
                if (
                    not isinstance(artifact, type)
                    or not issubclass(artifact, Artifact)
                    or not hasattr(artifact, "path")
                ):
                    raise TypeError(f"stage {name}: {argument!r} needs an Artifact with a path, not {artifact!r}")
                (inputs if origin is Input else outputs)[argument] = artifact
            elif hint in (StepLog, Scratch, Registry):
                services[hint] = argument
            elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
                _check_params(name, hint)
                params[argument] = hint
            else:
                raise TypeError(
                    f"stage {name}: argument {argument!r} must be a params dataclass, Input[...], Output[...], "
                    f"StepLog, Scratch or Registry, not {hint!r}"
                )
        if not outputs:
            raise TypeError(f"stage {name} writes nothing: give it an Output[...] argument")
        if both := set(inputs.values()) & set(outputs.values()):
            raise TypeError(f"stage {name} reads and writes {sorted(a.path for a in both)}: a cycle of one")
        if not function.__doc__:
            raise TypeError(f"stage {name} needs a docstring: its first line is its description in both graphs")
        log, scratch, registry = (services.get(service) for service in (StepLog, Scratch, Registry))
        return Stage(function, params, inputs, outputs, log, scratch, registry, machine, pipeline)

    return declare


def _check_params(stage_name: str, kind: Any) -> None:
    where = f"stage {stage_name}: params {kind.__name__}"
    if not kind.__dataclass_params__.frozen:
        raise TypeError(f"{where} must be declared @dataclass(frozen=True, kw_only=True)")
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
            raise TypeError(f"{where}.{field.name} has a default: remove it, params.yaml holds every value")
        for part in (hints[field.name], *get_args(hints[field.name])):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                _check_params(stage_name, part)
