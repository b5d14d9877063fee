"""Strict reading of params: a section of `params.yaml` becomes a frozen dataclass, or an error that says what to fix.

A profile is an overlay: `profiles/<name>.yaml` holds only what differs from `params.yaml`, which is profile "demo".
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typing_extensions import is_typeddict

from lifecycle.declare.profiles import list_profile_files, merge_sections
from lifecycle.declare.stage import Stage

Sections = dict[str, dict[str, Any]]

LIMITS = {
    "greater_than_equal": "it must be {ge:g} or more",
    "greater_than": "it must be above {gt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "less_than": "it must be below {lt:g}",
    "multiple_of": "it must be a multiple of {multiple_of:g}",
    "too_short": "give {min_length} or more",
}
"""Kind of pydantic's problem with a value out of range -> the fix."""

MAX_QUOTED = 200  # characters of a wrong value in a message


@runtime_checkable
class CheckedTogether(Protocol):
    """A params dataclass whose values must fit those of the stage's other sections."""

    def check_with(self, params: Mapping[str, Any]) -> None:
        """Raise `ValueError` if they do not fit; `params` are all params arguments of the stage."""


@runtime_checkable
class ReadsOutside(Protocol):
    """A params dataclass that may name content which neither a pin nor a stage of the project holds."""

    def fingerprint_outside(self, root: Path) -> Mapping[str, str]:
        """Return address, without credentials -> what tells its content now from another, as its ETag or a digest.

        Raises `ValueError` in one sentence for what cannot be asked; {}: everything that is read lies in the project.
        """


def load_sections(profile: str = "demo", root: Path = Path()) -> Sections:
    """Return the sections of a profile of the project at `root`: its overlay merged onto `params.yaml`.

    Of several, as "tiny+dit", each is merged onto those before it.
    """
    sections: Sections = {}
    for file in list_profile_files(profile, root):
        sections = merge_sections(sections, read_sections(file))
    return sections


def read_sections(path: Path) -> Sections:
    """Return the sections of one file (YAML 1.2, as DVC reads it: `1e-4` is a number, a key stands once)."""
    try:
        sections = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run this in the project's root, or restore it with git") from None
    except (YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of 5,000 digits
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path} is not valid YAML: its brackets are nested too deep") from None
    if not isinstance(sections, dict) or not all(isinstance(values, dict) for values in sections.values()):
        raise ValueError(f"{path} must be sections of keys, as in `ingest:` and `  seed: 0` below it")
    for name in sections:
        if not isinstance(name, str):
            raise ValueError(
                f"{path} has a section called {str(name)[:MAX_QUOTED]}, which is no text: put it in quotes"
            )
    return sections


def read_stage_params(stage: Stage[Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stage's params arguments, read from its sections and checked together."""
    params = {argument: read_section(kind, argument, sections) for argument, kind in stage.params.items()}
    for argument, section in params.items():
        if isinstance(section, CheckedTogether):
            try:
                section.check_with(params)
            except ValueError as error:
                raise ValueError(_shorten(f"params section {argument!r}: {error}")) from None
    return params


def read_section(kind: type, section: str, sections: Mapping[str, Any]) -> Any:
    """Return the section as dataclass `kind`; `ValueError` naming key, section and fix otherwise."""
    if section not in sections:
        hint = _suggest(section, sections)
        raise ValueError(f"params section {section!r} is missing{hint}; it needs {', '.join(_list_keys(kind))}")
    try:
        text = json.dumps(sections[section])
    except TypeError as error:  # YAML's dates, sets and bytes
        reason = f"{error}".removeprefix("Object of type ").partition(" is ")[0]
        raise ValueError(f"params section {section!r} holds a {reason}: write a number, or text in quotes") from None
    except (ValueError, RecursionError):
        raise ValueError(f"params section {section!r} refers to itself, or is nested too deep") from None
    try:
        return _build_adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        sentences = (_shorten(_explain(kind, section, dict(problem))) for problem in error.errors())
        raise ValueError("; ".join(sentences)) from None


def list_unused_sections(stages: Iterable[Stage[Any]], sections: Mapping[str, Any]) -> list[str]:
    """Return the sections that no stage reads: a setting that is ignored is an error."""
    read = {argument for stage in stages for argument in stage.params}
    return sorted(sections.keys() - read)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested params as `section.key` -> value."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


@cache
def _build_adapter(kind: type) -> TypeAdapter[Any]:
    _forbid_unknown(kind)
    return TypeAdapter(kind)


def _forbid_unknown(kind: Any) -> None:
    kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if _has_keys(part):
                _forbid_unknown(part)


def _explain(kind: type, section: str, problem: dict[str, Any]) -> str:
    *parents, key = problem["loc"] or (section,)
    where = ".".join([section, *map(str, parents)])
    match problem["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            keys = _list_keys(_find_nested(kind, parents))
            hint = _suggest(str(key), keys)
            quoted = str(key)[:MAX_QUOTED]
            return f"params key {quoted!r} in section {where!r} is unknown{hint}; it has {', '.join(keys)}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"params key {key!r} in section {where!r} is missing: add `{key}: ...`"
        case "value_error":  # from the dataclass's own check, which says what is wrong with which value
            return f"params section {'.'.join([section, *map(str, problem['loc'])])!r}: {problem['ctx']['error']}"
        case _:
            value, message = json.dumps(problem["input"]), problem["msg"]
            value = value if len(value) <= MAX_QUOTED else f"{value[:MAX_QUOTED]}..."
            limit = LIMITS.get(problem["type"])
            reason = limit.format(**problem["ctx"]) if limit else f"{message[0].lower()}{message[1:]}"
            return f"params key {key!r} in section {where!r} is {value}: {reason}"


def _shorten(sentence: str) -> str:
    """Return a sentence on one line, without the ends of words that are longer than a quoted value."""
    words = (word if len(word) <= MAX_QUOTED + 9 else f"{word[:MAX_QUOTED]}..." for word in sentence.split())
    return " ".join(words)


def _find_nested(kind: Any, keys: Iterable[object]) -> Any:
    for key in keys:
        hint = get_type_hints(kind).get(str(key))
        kind = next((part for part in (hint, *get_args(hint)) if _has_keys(part)), kind)
    return kind


def _has_keys(kind: Any) -> bool:
    return (isinstance(kind, type) and dataclasses.is_dataclass(kind)) or is_typeddict(kind)


def _suggest(key: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(keys), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _list_keys(kind: Any) -> list[str]:
    return list(kind.__annotations__ if is_typeddict(kind) else (field.name for field in dataclasses.fields(kind)))
