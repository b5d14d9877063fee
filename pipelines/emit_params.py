"""`docs/params.md` from the params dataclasses: every key, its type and meaning, its values, and who reads it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from typing_extensions import is_typeddict

from lifecycle.declare.params import Sections
from lifecycle.declare.stage import Stage

HEADER = """<!-- Written by `make graph` from the params dataclasses: change a dataclass or a profile, not this. -->
# Parameters

`params.yaml` holds every value of the demo; a profile, `profiles/<name>.yaml`, only what it has differently. An empty
cell of a profile means: as in the demo. A stage reads the sections that its signature names.
"""

NAMES: Mapping[Any, str] = {int: "integer", float: "number", bool: "true or false", str: "text", types.NoneType: "null"}

SIGNS = {Ge: "≥ {0.ge:g}", Gt: "> {0.gt:g}", Le: "≤ {0.le:g}", Lt: "< {0.lt:g}"} | {
    MinLen: "({0.min_length} or more)",
    MultipleOf: "(multiple of {0.multiple_of:g})",
}

COMMENTED = re.compile(r"^ {4}(\w+): .*?  # (.*)$", re.MULTILINE)  # a field and the comment beside it

DOCUMENTED = re.compile(r'^ {4}(\w+): [^\n]*\n {4}"""(.*?)"""', re.MULTILINE | re.DOTALL)
"""A field and the text below it."""


def format_params_page(stages: Sequence[Stage[Any]], profiles: Mapping[str, Sections]) -> str:
    """Return the page as Markdown; `profiles` are name -> sections, the demo first."""
    kinds = {section: kind for stage in stages for section, kind in stage.params.items()}
    blocks = [HEADER]
    for section in next(iter(profiles.values())):
        kind = kinds[section]
        readers = ", ".join(f"`{stage.name}`" for stage in stages if section in stage.params)
        lines = [f"## {section}", "", f"{_format_summary(kind)} Read by {readers}.".strip(), ""]
        lines += [_format_row(["key", "type", "meaning", *profiles]), _format_row(["---"] * (3 + len(profiles)))]
        for path, hint, meaning in _list_keys(kind):
            values = [_format_value(sections[section], path, _format_type(hint)) for sections in profiles.values()]
            cells = [values[0], *("" if value == values[0] else value for value in values[1:])]
            lines.append(_format_row([f"`{'.'.join(path)}`", _format_type(hint), meaning, *cells]))
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _format_summary(kind: type) -> str:
    text = kind.__doc__ or ""
    generated = text.startswith(f"{kind.__name__}(")  # by the dataclass decorator itself
    return "" if generated else " ".join(text.partition(". ")[0].split()).rstrip(".") + "."


def _list_keys(kind: Any, parents: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """Yield path, type and meaning of every key of a params dataclass, those within its sections too."""
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        source = inspect.getsource(base)
        meanings |= dict(COMMENTED.findall(source)) | dict(DOCUMENTED.findall(source))
    hints, plain = get_type_hints(kind, include_extras=True), get_type_hints(kind)
    for field in dataclasses.fields(kind):
        path, hint = (*parents, field.name), hints[field.name]
        parts = (plain[field.name], *get_args(plain[field.name]))
        nested = next((part for part in parts if dataclasses.is_dataclass(part)), None)
        if nested is None or hint is not nested:
            yield path, hint, " ".join(meanings.get(field.name, "").split())
        if nested is not None:
            yield from _list_keys(nested, path)


def _format_type(hint: Any) -> str:
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        return " ".join([_format_type(parts[0]), *(SIGNS[type(limit)].format(limit) for limit in parts[1:])])
    if get_origin(hint) is Literal:
        return " or ".join(map(str, parts))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_format_type, parts))
    if get_origin(hint) in (tuple, list):
        return f"list of {_format_type(parts[0])}"
    if get_origin(hint) is dict:
        return f"{_format_type(parts[0])} -> {_format_type(parts[1])}"
    if is_typeddict(hint):
        return "any of " + ", ".join(hint.__annotations__)
    return NAMES.get(hint, "section")


def _format_value(values: Any, path: Sequence[str], kind: str) -> str:
    for key in path:
        if values is None:
            return ""
        values = values[key]
    if values is not None and kind.startswith("section"):
        return "given"  # its keys have rows of their own
    return f"`{values if isinstance(values, str) else json.dumps(values)}`"


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
