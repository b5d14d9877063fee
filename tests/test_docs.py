"""What the pages say is so: links, paths, targets, options, the catalogue example, the version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from canvas.__main__ import _parser as canvas_parser
from components.ingest import IngestParams
from lifecycle.__main__ import _parser as lifecycle_parser
from lifecycle.declare.graph import stage_names
from lifecycle.declare.params import read_section

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LONG = re.compile(r"\[\w+\]: https?://")
GENERATED = "params.md"
TO_COME = ("components/count_colours.py", "components/artifacts.py")

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@page
def test_paths_that_are_named_exist(page: Path) -> None:
    folders = "canvas|evaluation|lifecycle|components|pipelines|bench|tests|docs|profiles"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and name not in TO_COME] == []


@page
def test_targets_are_makes(page: Path) -> None:
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert [target for target in targets if not re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)] == []


@page
def test_lines_fit(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    long = [line for line in lines if len(line) >= 120 and not LONG.match(line)]
    assert page.name == GENERATED or long == []


@page
def test_stages_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:train|evaluate|validate|tune|mine|sample)_[a-z_]+)`", page.read_text(encoding="utf-8"))
    assert set(named) <= set(stage_names())


def test_example_of_a_catalogue_is_read() -> None:
    text = (ROOT / "docs/tutorials/your-catalogue.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    params = read_section(IngestParams, "ingest", YAML(typ="safe", pure=True).load(example))
    assert params.source == "manifest"
    assert params.manifest.columns["pin_id"] == "sku"


def test_every_option_and_command_is_on_the_page() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    styles = (ROOT / "docs/how-to/styles.md").read_text(encoding="utf-8")
    (generate,) = (action.choices["generate"] for action in canvas_parser()._actions if action.choices)
    options = {name for action in generate._actions for name in action.option_strings} - {"-h", "--help"}
    assert options <= set(re.findall(r"--[a-z-]+", text + styles))
    (commands,) = (action.choices for action in lifecycle_parser()._actions if action.choices)
    assert [name for name in commands if f"| `{name}" not in text] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


def test_changes_begin_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest == version
