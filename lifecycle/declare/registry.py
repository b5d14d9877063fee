"""What a stage asks of the registry of models, and what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, Unpack

if TYPE_CHECKING:
    from lifecycle.declare.stage import Artifact, Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What is recorded of how an artifact's content came to be, back to the raw data."""

    artifacts: Mapping[str, str]  # path -> digest of all that led to it, itself included
    params: Mapping[str, Any]  # `section.key` -> value, of every stage on the way
    runs: Mapping[str, str]  # path -> address of the run that wrote it, in the tracking server's pages
    tree: tuple[str, ...]  # the same as text, a line an artifact, with the runs' ids


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
    challenger: str  # digest of the model that was judged
    champion: str | None  # digest of the one that it was compared with; None: there was none


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """A move of the champion, as it stands in the registry's history."""

    kind: Literal["promote", "rollback"]
    before: str | None  # version of the composite that was champion; None: none was
    after: str | None
    who: str
    when: str  # UTC, ISO 8601
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """How a composite model answers requests: column or option -> its type ("binary", "string", "long", "double";
    "binary[]": several; "string?": the column may be left out)."""

    loader: str  # module with `_load_pyfunc(path)`, which gives an object with `predict(frame, params)`
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    options: Mapping[str, tuple[str, Any]]  # option -> type and default


class Facts(TypedDict):
    """What a composite is registered with, beside its files."""

    served: Served
    evidence: Mapping[str, Path]  # name -> file, or directory that stays with a champion
    metrics: Path  # a Metrics file
    decision: Decision


class Registry(Protocol):
    """The registered models. All raise `ValueError` in one sentence when the registry does not answer."""

    def trace_origin(self, artifact: type[Artifact], digest: str) -> Origin:
        """Return how content `digest` of `artifact` was made, as far as it is recorded."""

    def register(
        self, composite: type[Model], models: Mapping[type[Model], Path], **facts: Unpack[Facts]
    ) -> Mapping[str, ModelVersion]:
        """Make a version of every model, or find the one that holds the same content, and point `candidate` at
        them; return name -> version. `composite`, one of `models`, is made of the others: it is stored with its files
        and evidence, has the numbers of its metrics, and can be loaded and asked as `served` says."""

    def promote(
        self, version: ModelVersion, decision: Decision, why: str, *, evidence: Mapping[str, str] | None = None
    ) -> Promotion:
        """Make a composite and all that was registered with it the champion, all together or none.

        `ValueError` naming the reason if the decision is no `pass`, is about another model or another champion, or
        a part was trained on another parent than the one that would be champion with it; or if `evidence`, path ->
        digest of what the decision was made of, was made with other models than those, as a reward that was trained
        anew since.
        """
