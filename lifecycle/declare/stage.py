"""A stage is one typed function: its signature is the only list of its parameters, inputs and outputs.

From it come the `dvc.yaml` stage, the Kubeflow component, the MLflow record and the strict reading of
`params.yaml`, so the four cannot drift apart. A wrong declaration fails where it is written.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from lifecycle.declare.registry import Registry

Paths = Mapping[str, Path]
"""Argument of a stage -> where it reads or writes."""

DECLARATIONS = "artifacts"
"""The module of a package of stages that declares what they exchange, and no stage."""


class Artifact:
    """Something that a stage writes. A subclass names its place, `class Pins(Dataset, path="artifacts/pins")`; its
    docstring is its schema.

    `path` is relative to the project's root, in POSIX form. A kind with a `suffix` needs no subclass: `Output[Metrics]`
    alone is `reports/<stage>/<argument>.json`, what only people read.
    """

    path: ClassVar[str]
    suffix: ClassVar[str | None] = None

    def __init_subclass__(cls, *, path: str | None = None) -> None:
        if path is None:
            return  # a kind of artifact, not an artifact
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise TypeError(f"{cls.__name__}.path must be a path relative to the project's root, not {path!r}")
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring that says what {path} holds")
        cls.path = path


class Dataset(Artifact):
    """A table: a directory of Parquet parts, or another directory of data."""


class Model(Artifact):
    """A directory of safetensors and configs that the stock library of its kind loads."""

    registered: ClassVar[str | None] = None
    """Name of its registered model in MLflow."""
    composite: ClassVar[bool] = False
    """Whether it is made of the other registered models, which are promoted with it."""
    example: ClassVar[str] = ""
    """The command by which a user sees what the composite does."""

    def __init_subclass__(cls, *, path: str | None = None, registered: str | None = None) -> None:
        super().__init_subclass__(path=path)
        cls.registered = registered

    @classmethod
    def read_sources(cls, folder: Path) -> Mapping[str, Mapping[str, str]]:
        """Return where public weights in the directory came from: part -> facts, as repository, commit and licence."""
        return {}


class Document(Artifact):
    """A JSON object."""


class Metrics(Document):
    """A JSON object of numbers (nested objects allowed): MLflow and KFP's Metrics show it. Two keys hold text:
    `skipped` the reason of a skipped stage (lifecycle.declare.skipping), `notes` a list of sentences about what a stage
    did otherwise than its params say. Times and peaks of memory, keys `seconds`, `*_per_second` and `peak_memory_mb`,
    go into the run's record and not into the file (lifecycle.record.timings): an equal run has equal metrics."""

    suffix = ".json"


class Headline(Metrics):
    """The few numbers by which whole runs are compared: the only ones that git keeps and `dvc metrics` shows. MLflow
    has them at the run that the stages are parts of."""

    @classmethod
    def format_summary(cls, values: Mapping[str, float]) -> list[str]:
        """Return the lines that a person reads at the end of a run."""
        return [f"{name.replace('_', ' '):44} {value:,.4g}" for name, value in values.items()]


class Report(Artifact):
    """One self-contained HTML page."""

    suffix = ".html"


class Site(Artifact):
    """A directory of HTML pages, `index.html` inside."""

    suffix = ""


class Plot(Artifact):
    """A CSV table that `dvc plots` draws."""

    suffix = ".csv"
    x: ClassVar[str]
    y: ClassVar[str | tuple[str, ...]]
    template: ClassVar[str] = "linear"


class Losses(Plot):
    """Training loss by step; of several networks, column `encoder` says of which."""

    x = "step"
    y = "loss"


class Sheet(Artifact):
    """One PNG."""

    suffix = ".png"


READABLE = (Metrics, Plot, Sheet, Report, Site)
"""What people read: what `Collected` collects."""


class Verdict(Document):
    """A JSON object of a `Decision`."""


A = TypeVar("A", bound=Artifact)
A_co = TypeVar("A_co", bound=Artifact, covariant=True)
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Input(Generic[A]):
    """Where a stage reads artifact A."""

    path: Path


@dataclass(frozen=True, slots=True)
class Output(Generic[A_co]):
    """Where a stage writes an artifact: a path that does not exist yet, in a directory that does."""

    path: Path

    @overload
    def write(self: Output[Document], content: Mapping[str, object]) -> None: ...
    @overload
    def write(self: Output[Losses], content: Sequence[tuple[int, float]]) -> None: ...
    @overload
    def write(self: Output[Plot | Report], content: str) -> None: ...
    @overload
    def write(self: Output[Sheet], content: bytes) -> None: ...
    def write(self, content: Mapping[str, object] | Sequence[tuple[int, float]] | str | bytes) -> None:
        """Write a JSON object, the (step, loss) pairs of a curve, the text of a table or page, or a PNG."""
        if isinstance(content, Mapping):
            content = json.dumps(content, indent=1) + "\n"
        elif not isinstance(content, str | bytes):
            content = "step,loss\n" + "".join(f"{step},{loss:.6g}\n" for step, loss in content)
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory that outlives a killed run and is handed to the next run with the same parameters,
    inputs and code: checkpoints live here. It is removed when the stage succeeds."""

    path: Path


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An output of a stage that another collects."""

    stage: str
    description: str
    """The stage's docstring."""
    argument: str
    kind: type[Artifact]
    path: Path


@dataclass(frozen=True, slots=True)
class Collected:
    """What the stages of this pipeline leave for people to read, in the order of the graph, for a stage that shows it
    all. The graph makes each exhibit an input; stages that read from this one are left out."""

    kinds: ClassVar[tuple[type[Artifact], ...]] = READABLE

    exhibits: tuple[Exhibit, ...]


class CollectedModels(Collected):
    """The models of this pipeline that have a registered name, likewise."""

    kinds = (Model,)


class StepLog(Protocol):
    """What a stage tells the run's record while it works."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""

    def image(self, name: str, png: bytes) -> None:
        """Record an encoded PNG as artifact `samples/<name>.png`."""


Machine = Literal["small", "cpu", "memory", "gpu", "gpus"]
"""The class of machine that a stage needs on a cluster; `pipelines/cluster.yaml` says what each is."""

Pipeline = Literal["train", "promote"]

MemoryEstimate = Callable[..., Iterable[tuple[str, int, str]]]
"""What one process of a stage holds at most in its machine's memory: when (empty: always), bytes, their arithmetic.

Its arguments are params sections by name, also such as only other stages read; `pins`, the number of pins that are
embedded; and `weights`, the number of weights of a model by its path.
"""


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
    collector: str | None
    collects: type[Collected]
    machine: Machine
    pipeline: Pipeline
    memory: MemoryEstimate | None = None
    """The estimate of a stage whose memory grows with its pins: `python -m pipelines.plan` shows it."""
    skips: bool = False
    """Whether `train: null` in its section skips it (lifecycle.declare.skipping)."""
    collected: Mapping[str, tuple[Stage[Any], str]] = dataclasses.field(default_factory=dict)
    """What `Collected` finds in a graph: input -> the stage that writes it, and as which output."""

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def module(self) -> str:
        return self.function.__module__

    @property
    def description(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return self.description.partition("\n")[0]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        self.function(*args, **kwargs)


def stage(
    *,
    machine: Machine = "small",
    pipeline: Pipeline = "train",
    memory: MemoryEstimate | None = None,
    skips: bool = False,
) -> Callable[[Callable[P, None]], Stage[P]]:
    """Declare the decorated function as a stage.

    Each argument is one of: a frozen dataclass (the section of `params.yaml` with the argument's name),
    `Input[Artifact]`, `Output[Artifact]`, `StepLog`, `Scratch`, `Registry`, `Collected`, `CollectedModels`. All else is
    a `TypeError`, as is a params dataclass with a default (params.yaml holds every value) or a stage that writes
    nothing.
    """

    def declare(function: Callable[P, None]) -> Stage[P]:
        name = function.__name__
        params: dict[str, type] = {}
        inputs: dict[str, type[Artifact]] = {}
        outputs: dict[str, type[Artifact]] = {}
        services: dict[type, str] = {}
        collects = Collected
        hints = get_type_hints(function)
        hints.pop("return", None)
        if undeclared := inspect.signature(function).parameters.keys() - hints.keys():
            raise TypeError(f"stage {name}: annotate {sorted(undeclared)}; the signature is the declaration")
        for argument, hint in hints.items():
            origin = get_origin(hint)
            if origin in (Input, Output):
                artifact = get_args(hint)[0]
                if origin is Output and isinstance(artifact, type) and issubclass(artifact, READABLE):
                    artifact = _assign_path(artifact, name, argument)
                if not (isinstance(artifact, type) and issubclass(artifact, Artifact) and hasattr(artifact, "path")):
                    raise TypeError(f"stage {name}: {argument!r} needs an Artifact with a path, not {artifact!r}")
                (inputs if origin is Input else outputs)[argument] = artifact
            elif hint in (StepLog, Scratch, Registry):
                services[hint] = argument
            elif hint in (Collected, CollectedModels):
                services[Collected], collects = argument, hint
            elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
                _check_params(name, hint)
                params[argument] = hint
            else:
                raise TypeError(
                    f"stage {name}: argument {argument!r} must be a params dataclass, Input[...], Output[...], "
                    f"StepLog, Scratch, Registry, Collected or CollectedModels, not {hint!r}"
                )
        if not outputs:
            raise TypeError(f"stage {name} writes nothing: give it an Output[...] argument")
        if cycle := set(inputs.values()) & set(outputs.values()):
            paths = sorted(artifact.path for artifact in cycle)
            raise TypeError(f"stage {name} reads and writes {paths}: a cycle of one")
        if skips and "train" not in getattr(params.get(name), "__dataclass_fields__", ()):
            raise TypeError(f"stage {name} cannot be skipped: it has no section {name!r} with a key `train`")
        if not function.__doc__:
            raise TypeError(f"stage {name} needs a docstring: its first line is its description in both graphs")
        log, scratch, registry, collector = map(services.get, (StepLog, Scratch, Registry, Collected))
        return Stage(
            function,
            params,
            inputs,
            outputs,
            log,
            scratch,
            registry,
            collector,
            collects,
            machine,
            pipeline,
            memory,
            skips,
        )

    return declare


def _assign_path(kind: type[Artifact], stage_name: str, argument: str) -> type[Artifact]:
    """Return `kind`, or where it has no path an artifact of it at `reports/<stage>/<argument>`."""
    if hasattr(kind, "path"):
        return kind
    if issubclass(kind, Plot) and not (hasattr(kind, "x") and hasattr(kind, "y")):
        raise TypeError(f"stage {stage_name}: {argument!r} is a Plot without axes: subclass it with `x` and `y`")
    path = f"reports/{stage_name}/{argument}{kind.suffix}"
    return type(f"{stage_name}.{argument}", (kind,), {"__doc__": kind.__doc__}, path=path)


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
