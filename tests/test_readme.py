"""What the README says is so: its targets, its tree, its example, its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.ingest import IngestParams
from lifecycle.declare.graph import stage_names
from lifecycle.declare.params import read_section

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))))
def test_every_target_is_one_of_makes(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE)


def test_every_entry_of_the_tree_exists() -> None:
    tree = README.partition("## The tree")[2].partition("##")[0]
    entries = re.findall(r"^    (\S+)", tree, re.MULTILINE)
    assert len(entries) > 8
    assert [name for name in entries if not (ROOT / name).exists()] == []


def test_example_of_a_catalogue_is_read() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    params = read_section(IngestParams, "ingest", YAML(typ="safe", pure=True).load(example))
    assert params.source == "manifest"
    assert params.manifest.columns["pin_id"] == "sku"


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_parameters_and_stages_it_names_exist() -> None:
    names = set(re.findall(r"`(?:dvc exp run -S )?(train_[a-z]+)\.", README))
    assert names
    assert names <= set(stage_names())
