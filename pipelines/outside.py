"""What stages read outside the project, and whether it changed since: neither DVC nor Kubeflow would see it.

That is what a params dataclass says of itself (ReadsOutside), and directories of weights on this machine. DVC runs this
before every `dvc repro`; what it writes is a dependency of the stages that read outside. On a cluster `submit` asks for
what the first stages read, and the answer is part of their tasks' cache keys.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from lifecycle.declare.graph import map_producers
from lifecycle.declare.params import ReadsOutside, Sections, read_section
from lifecycle.declare.stage import Stage
from lifecycle.terminal import print_plain
from lifecycle.workspace.digest import digest
from lifecycle.workspace.staging import write_atomically
from pipelines.ask_outside import OUTSIDE, remember_empty

WEIGHTS = ("init_from", "repository")  # params keys that name weights: a hub id, or a directory or file here


def reads_outside(stage: Stage[Any]) -> bool:
    """Tell whether a stage's params may name content outside the project."""
    return any(issubclass(kind, ReadsOutside) or _names_weights(kind) for kind in stage.params.values())


def fingerprint_stage(
    stage: Stage[Any], sections: Mapping[str, Any], root: Path, digests: dict[Path, str]
) -> dict[str, str]:
    """Return address -> fingerprint of what the stage reads outside; `digests` remembers those of weights.

    Raises `ValueError` or `OSError` for what cannot be asked.
    """
    fingerprints: dict[str, str] = {}
    for argument, kind in stage.params.items():
        if issubclass(kind, ReadsOutside):
            params: ReadsOutside = read_section(kind, argument, sections)
            fingerprints |= params.fingerprint_outside(root)
        for name in _list_weights(sections.get(argument)):
            if (place := root / Path(name).expanduser()).exists():
                if place not in digests:
                    digests[place] = digest(place)
                fingerprints[name] = f"md5 {digests[place]}"
    return fingerprints


def write_fingerprints(root: Path, stages: Iterable[Stage[Any]], sections: Sections) -> list[str]:
    """Write OUTSIDE; return a line about each address. Where it cannot be asked, what was known of it stays.

    Raises `ValueError` where it cannot be asked and nothing is known.
    """
    stages = [stage for stage in stages if reads_outside(stage)]
    lines: list[str] = []
    digests: dict[Path, str] = {}
    (root / OUTSIDE).mkdir(parents=True, exist_ok=True)
    for stage in stages:
        file = root / OUTSIDE / stage.name
        before = file.read_text(encoding="utf-8") if file.is_file() else "{}\n"
        try:
            fingerprints = fingerprint_stage(stage, sections, root, digests)
        except (ValueError, OSError) as error:
            if not file.is_file():
                raise ValueError(f"{error}; nothing is known of it yet: run `dvc checkout {OUTSIDE}`") from error
            print_plain(f"note: {error}: whether it changed is not known, so it counts as unchanged", file=sys.stderr)
            text = before
        else:
            text = json.dumps(fingerprints, indent=1, sort_keys=True) + "\n"
            lines += [f"{stage.name} reads {address}: {value}" for address, value in fingerprints.items()]
        if text != before or not file.is_file():
            write_atomically(file, text)
    return lines


def remember_if_empty(root: Path, stages: Iterable[Stage[Any]], sections: Sections) -> None:
    """Remember it if nothing is read outside, so that DVC's next question costs nothing."""
    stages = [stage for stage in stages if reads_outside(stage)]
    if all((root / OUTSIDE / stage.name).read_text(encoding="utf-8") == "{}\n" for stage in stages):
        names = (name for stage in stages for argument in stage.params for name in _list_weights(sections[argument]))
        remember_empty(root, [stage.name for stage in stages], names)


def compute_cache_keys(
    root: Path, stages: Sequence[Stage[Any]], sections: Sections, uris: Mapping[str, str], revision: str
) -> dict[str, str]:
    """Return stage -> cache key of its Kubeflow task: code, params, inputs from outside the pipeline and fingerprints;
    of stages that do read outside, and nothing that another one makes, which would have to be part of the key. What
    cannot be asked from here, but may be from the cluster, makes the key a new one: the stage runs."""
    keys = {}
    writers = map_producers(stages)
    for stage in filter(reads_outside, stages):
        if writers.keys() & set(stage.inputs.values()):
            continue
        try:
            fingerprints = fingerprint_stage(stage, sections, root, {})
        except ValueError as error:
            print_plain(f"note: {error}: whether it changed is not known, so {stage.name} runs again", file=sys.stderr)
            fingerprints = {"not known": uuid.uuid4().hex}
        if fingerprints:
            values = {section: sections[section] for section in stage.params}
            text = json.dumps([stage.name, revision, values, dict(uris), fingerprints], sort_keys=True)
            keys[stage.name] = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return keys


def _names_weights(kind: Any) -> bool:
    """Tell whether a params dataclass, or one within, has a key that names weights."""
    if not dataclasses.is_dataclass(kind):
        return False
    hints = get_type_hints(kind)
    return not hints.keys().isdisjoint(WEIGHTS) or any(
        _names_weights(part) for hint in hints.values() for part in (hint, *get_args(hint))
    )


def _list_weights(values: Any) -> Iterator[str]:
    """Yield what the keys of WEIGHTS in a section say."""
    if isinstance(values, Mapping):
        yield from (value for key, value in values.items() if key in WEIGHTS and isinstance(value, str))
        values = values.values()
    if not isinstance(values, str) and isinstance(values, Iterable):
        for value in values:
            yield from _list_weights(value)
