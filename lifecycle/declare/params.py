"""Strict reading of `params.yaml`: a section becomes a frozen dataclass, or an error that says what to fix."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lifecycle.declare.stage import Stage

Sections = dict[str, dict[str, Any]]


def load_sections(path: Path) -> Sections:
    """The sections of a params file (YAML 1.2, as DVC reads it: `1e-4` is a number, a key stands once)."""
    try:
        sections = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: it holds every parameter; profiles/ has whole examples") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(sections, dict) or not all(isinstance(values, dict) for values in sections.values()):
        raise ValueError(f"{path} must be sections of keys, as in `ingest:` and `  seed: 0` below it")
    return sections


def read_stage_params(stage: Stage[Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's params arguments, read from its sections."""
    return {argument: read_section(kind, argument, sections) for argument, kind in stage.params.items()}


def read_section(kind: type, section: str, sections: Mapping[str, Any]) -> Any:
    """Section `section` as dataclass `kind`; `ValueError` naming key, section and fix otherwise."""
    if section not in sections:
        raise ValueError(
            f"params section {section!r} is missing{_did_you_mean(section, sections)}; it needs {_keys(kind)}"
        )
    _forbid_unknown(kind)
    try:
        return TypeAdapter(kind).validate_json(json.dumps(sections[section]), strict=True)
    except ValidationError as error:
        problems = [_explain(kind, section, dict(problem)) for problem in error.errors()]
        raise ValueError("; ".join(problems)) from None


def unused_sections(stages: Iterable[Stage[Any]], sections: Mapping[str, Any]) -> list[str]:
    """Sections that no stage reads: a setting that is ignored is an error."""
    read = {argument for stage in stages for argument in stage.params}
    return sorted(sections.keys() - read)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested params as `section.key` -> value."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _forbid_unknown(kind: Any) -> None:
    kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                _forbid_unknown(part)


def _explain(kind: type, section: str, problem: dict[str, Any]) -> str:
    *parents, key = problem["loc"] or (section,)
    where = ".".join([section, *map(str, parents)])
    match problem["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            known = [field.name for field in dataclasses.fields(_nested(kind, parents))]
            hint = _did_you_mean(str(key), known)
            return f"params key {key!r} in section {where!r} is unknown{hint}; it has {', '.join(known)}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"params key {key!r} in section {where!r} is missing: add `{key}: ...`"
        case "value_error":  # from the dataclass's own check, which says what is wrong with which value
            return f"params section {'.'.join([section, *map(str, problem['loc'])])!r}: {problem['ctx']['error']}"
        case _:
            found = json.dumps(problem["input"])
            return (
                f"params key {key!r} in section {where!r} is {found}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
            )


def _nested(kind: Any, keys: Iterable[object]) -> Any:
    for key in keys:
        hint = get_type_hints(kind).get(str(key))
        kind = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), kind)
    return kind


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _keys(kind: Any) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))
