"""params.yaml: what is read, and the error for everything else."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import TypedDict

from lifecycle.declare.params import flatten, list_unused_sections, load_sections, read_section, read_stage_params
from lifecycle.declare.profiles import find_profiles, merge_sections
from lifecycle.declare.stage import Metrics, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    learning_rate: float
    kind: Literal["adamw", "lion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    steps: int
    optimizer: Optimizer
    sizes: tuple[int, ...]
    init_from: str | None
    resume: bool


class Count(Metrics, path="reports/count.json"):
    """A count."""


@stage()
def train(train: Train, optimizer: Optimizer, out: Output[Count]) -> None:
    """Train."""


GOOD = """\
train:
  steps: 3
  optimizer: {learning_rate: 1e-4, kind: adamw}
  sizes: [64, 128]
  init_from: null
  resume: false
optimizer: {learning_rate: 1, kind: lion}
"""


def sections(tmp_path: Path, text: str) -> dict[str, dict[str, object]]:
    (tmp_path / "params.yaml").write_text(text)
    return load_sections(root=tmp_path)


def test_sections_become_dataclasses(tmp_path: Path) -> None:
    assert read_stage_params(train, sections(tmp_path, GOOD)) == {
        "train": Train(
            steps=3,
            optimizer=Optimizer(learning_rate=1e-4, kind="adamw"),
            sizes=(64, 128),
            init_from=None,
            resume=False,
        ),
        "optimizer": Optimizer(learning_rate=1.0, kind="lion"),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    small: int
    large: int

    def __post_init__(self) -> None:
        if self.small > self.large:
            raise ValueError(f"small is {self.small}, above large, which is {self.large}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    steps: int
    sizes: Sizes


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps: 3", "step: 3", r"key 'step' in section 'train' is unknown \(did you mean 'steps'\?\); it has steps, "),
        ("steps: 3", "steps: 3\n  stepsize: 1", "key 'stepsize' in section 'train' is unknown"),
        ("  steps: 3\n", "", "key 'steps' in section 'train' is missing: add `steps: ...`"),
        ("steps: 3", "steps: 3.0", "key 'steps' in section 'train' is 3.0: "),
        ("steps: 3", "steps: '3'", "key 'steps' in section 'train' is \"3\": "),
        ("steps: 3", "steps: true", "key 'steps' in section 'train' is true: "),
        ("steps: 3", "steps:", "key 'steps' in section 'train' is null: "),
        ("resume: false", "resume: 0", "key 'resume' in section 'train' is 0: "),
        ("resume: false", "resume: no", "key 'resume' in section 'train' is \"no\": "),
        ("kind: adamw", "kind: adam", "key 'kind' in section 'train.optimizer' is \"adam\": "),
        ("1e-4", ".nan", "key 'learning_rate' in section 'train.optimizer' is NaN: "),
        ("1e-4", ".inf", "key 'learning_rate' in section 'train.optimizer' is Infinity: "),
        ("{learning_rate: 1e-4, ", "{rate: 1e-4, ", "key 'rate' in section 'train.optimizer' is unknown"),
        ("[64, 128]", "[64, big]", "key 1 in section 'train.sizes' is \"big\": "),
        ("[64, 128]", "64", "key 'sizes' in section 'train' is 64: "),
        ("train:", "trian:", r"section 'train' is missing \(did you mean 'trian'\?\); it needs steps, optimizer"),
    ],
)
def test_a_typo_is_named_with_its_section(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_stage_params(train, sections(tmp_path, GOOD.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: 3", "must be sections of keys"),
        ("- 3", "must be sections of keys"),
        ("", "must be sections of keys"),
        ("train: {steps: 3}\nnull: {a: 1}", "has a section called None, which is no text: put it in quotes"),
        ("train: {steps: 3}\n7: {a: 1}", "has a section called 7, which is no text"),
        ("train: {steps: 3", "is not valid YAML"),
        ("train:\n  steps: 3\n  steps: 4", "is not valid YAML: .*duplicate key"),
        ("train: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_params_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sections(tmp_path, text)


def test_a_check_of_the_dataclass_speaks_for_itself() -> None:
    section = {"steps": 3, "sizes": {"small": 5, "large": 4}}
    with pytest.raises(ValueError, match=r"^params section 'checked.sizes': small is 5, above large, which is 4$"):
        read_section(Checked, "checked", {"checked": section})


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    name: str

    def __post_init__(self) -> None:
        raise ValueError(f"name is {self.name}: give another")


def test_what_a_dataclass_says_of_a_long_value_is_one_short_line() -> None:
    with pytest.raises(ValueError, match=r"^params section 'named': name is a b x{200}\.\.\. give another$"):
        read_section(Named, "named", {"named": {"name": "a\nb " + "x" * 5000}})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"params.yaml is missing: run this in the project's root"):
        load_sections(root=tmp_path)


def test_a_section_that_nobody_reads_is_found(tmp_path: Path) -> None:
    assert list_unused_sections([train], sections(tmp_path, GOOD + "ghost: {a: 1}\n")) == ["ghost"]


def test_flat() -> None:
    assert flatten({"train": {"steps": 3, "optimizer": {"kind": "lion"}, "sizes": [1, 2]}}) == {
        "train.steps": 3,
        "train.optimizer.kind": "lion",
        "train.sizes": [1, 2],
    }


def test_params_are_frozen() -> None:
    optimizer = read_section(Optimizer, "optimizer", {"optimizer": {"learning_rate": 1, "kind": "lion"}})
    with pytest.raises(AttributeError):
        optimizer.learning_rate = 2.0


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        ({"a": 1, "b": 2}, {}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"x": 1, "y": {"z": 2}}}, {"a": {"y": {"z": 3}}}, {"a": {"x": 1, "y": {"z": 3}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ],
)
def test_an_overlay_is_merged(base: dict[str, Any], overlay: dict[str, Any], merged: dict[str, Any]) -> None:
    before = copy.deepcopy(base)
    assert merge_sections(base, overlay) == merged
    assert base == before


def test_a_profile_holds_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text("train: {steps: 1, optimizer: {kind: lion}}\n")
    demo = sections(tmp_path, GOOD)
    small = load_sections("small", tmp_path)
    assert list(find_profiles(tmp_path)) == ["demo", "small"]
    assert small["train"] == demo["train"] | {"steps": 1, "optimizer": {"learning_rate": 1e-4, "kind": "lion"}}
    assert small["optimizer"] == demo["optimizer"]
    with pytest.raises(ValueError, match="no profile 'huge': there are demo, small"):
        load_sections("huge", tmp_path)


def test_of_two_profiles_the_later_one_wins(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text("train: {steps: 1, sizes: [8]}\n")
    (tmp_path / "profiles" / "long.yaml").write_text("train: {steps: 9}\n")
    demo = sections(tmp_path, GOOD)
    assert load_sections("small+long", tmp_path)["train"] == demo["train"] | {"steps": 9, "sizes": [8]}
    assert load_sections("long+small", tmp_path)["train"] == demo["train"] | {"steps": 1, "sizes": [8]}
    assert load_sections("demo+long", tmp_path) == load_sections("long", tmp_path)
    for profile in ("small+huge", "huge+small"):
        with pytest.raises(ValueError, match="no profile 'huge': there are demo, long, small"):
            load_sections(profile, tmp_path)
    with pytest.raises(ValueError, match="no profile '': there are"):
        load_sections("small+", tmp_path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    size: int

    def check_with(self, params: Mapping[str, Any]) -> None:
        if self.size > params["sizes"].large:
            raise ValueError(f"size is {self.size}, above large")


@stage()
def fill(batch: Batch, sizes: Sizes, out: Output[Count]) -> None:
    """Fill."""


def test_sections_of_a_stage_are_checked_together() -> None:
    assert read_stage_params(fill, {"batch": {"size": 4}, "sizes": {"small": 1, "large": 4}})["batch"].size == 4
    with pytest.raises(ValueError, match=r"^params section 'batch': size is 5, above large$"):
        read_stage_params(fill, {"batch": {"size": 5}, "sizes": {"small": 1, "large": 4}})


class Deviations(TypedDict, total=False):
    steps: int
    rate: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Deviating:
    override: Deviations


@pytest.mark.parametrize("override", [{}, {"steps": 3}, {"steps": 3, "rate": None}])
def test_keys_may_be_left_out_of_a_typed_dictionary_alone(override: dict[str, Any]) -> None:
    assert read_section(Deviating, "run", {"run": {"override": override}}).override == override


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            {"step": 3},
            r"key 'step' in section 'run.override' is unknown \(did you mean 'steps'\?\); it has steps, rate",
        ),
        ({"steps": 3.5}, "key 'steps' in section 'run.override' is 3.5"),
        ({"rate": float("nan")}, "key 'rate' in section 'run.override' is NaN"),
    ],
)
def test_a_wrong_key_of_a_typed_dictionary_is_named(override: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_section(Deviating, "run", {"run": {"override": override}})


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranged:
    count: Annotated[int, Ge(1)]
    share: Annotated[float, Gt(0), Lt(1)]
    limit: Annotated[int, Le(9)] | None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 0}, "key 'count' in section 'ranged' is 0: it must be 1 or more"),
        ({"share": 0}, "key 'share' in section 'ranged' is 0: it must be above 0"),
        ({"share": 1.0}, "key 'share' in section 'ranged' is 1.0: it must be below 1"),
        ({"limit": 10}, "key 'limit' in section 'ranged' is 10: it must be at most 9"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_the_fix(changes: dict[str, Any], says: str) -> None:
    good = {"count": 1, "share": 0.5, "limit": None}
    assert read_section(Ranged, "ranged", {"ranged": good}).share == 0.5
    with pytest.raises(ValueError, match=says):
        read_section(Ranged, "ranged", {"ranged": good | changes})


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (datetime.date(2024, 1, 1), "params section 'optimizer' holds a date: write a number, or text in quotes"),
        ({1, 2}, "params section 'optimizer' holds a set"),
        (b"bytes", "params section 'optimizer' holds a bytes"),
        (nest(100_000), "params section 'optimizer' refers to itself, or is nested too deep"),
        (nest(900), "params .*recursion limit exceeded"),
        (float("nan"), "params key 'learning_rate' in section 'optimizer' is NaN: input should be a finite number"),
        ("x" * 5000, r"is \"x{199}\.\.\.: input should be a valid number"),
    ],
)
def test_a_value_that_no_params_have_is_one_sentence(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_section(Optimizer, "optimizer", {"optimizer": {"learning_rate": value, "kind": "lion"}})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 5000, "its brackets are nested too deep"),
        ("a: {b: 2024-99-99}", "is not valid YAML: month must be in"),
        ("a: {b: " + "9" * 5000 + "}", "is not valid YAML: Exceeds the limit"),
    ],
)
def test_yaml_that_no_params_are_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match=says):
        load_sections(root=tmp_path)


def test_a_section_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: &x {b: *x}")
    with pytest.raises(ValueError, match="params section 'a' refers to itself"):
        read_section(Optimizer, "a", load_sections(root=tmp_path))
