"""What a stage reads outside the project is a dependency in both graphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lifecycle.declare.graph import load_stages
from lifecycle.declare.params import load_sections
from pipelines.ask_outside import DECLARED, is_known_empty
from pipelines.cluster import read_cluster
from pipelines.emit_kfp import compile_pipelines
from pipelines.outside import compute_cache_keys, reads_outside, remember_if_empty, write_fingerprints
from tests.graph.conftest import ROOT, Project

READING = """    offset: float

    def fingerprint_outside(self, root):
        place = root.parent / "list.txt"
        if not place.is_file():
            raise ValueError("list.txt cannot be had")
        return {"list.txt": place.read_text()}
"""


@pytest.fixture
def reading(toy: Project) -> Project:
    """The toy as a DVC repository whose stage `square` reads a file beside the project."""
    square = toy.read("components/square.py")
    toy.write("components/square.py", square.replace("    offset: float\n", READING))
    (toy.root.parent / "list.txt").write_text("v1")
    toy.ok("git", "init", "--quiet")
    toy.ok("dvc", "init", "--quiet")
    toy.pipelines("graph")
    toy.ok("dvc", "add", "--quiet", "data")
    return toy


def test_dvc_sees_a_change_outside(reading: Project) -> None:
    assert reading.dvc()["stages"]["outside"]["outs"] == [{"artifacts/outside": {"persist": True}}]
    assert "artifacts/outside/square" in reading.dvc()["stages"]["square"]["deps"]
    assert "artifacts/outside/mean" not in reading.dvc()["stages"]["mean"]["deps"]
    assert "Running stage 'square'" in reading.ok("dvc", "repro", "square")
    assert "Stage 'square' didn't change, skipping" in reading.ok("dvc", "repro", "square")
    (reading.root.parent / "list.txt").write_text("v2")
    run = reading.ok("dvc", "repro", "square")
    assert "square reads list.txt: v2" in run
    assert "Running stage 'square'" in run


def test_what_cannot_be_asked_counts_as_unchanged(reading: Project) -> None:
    reading.ok("dvc", "repro", "square")
    (reading.root.parent / "list.txt").unlink()
    done = reading.run("dvc", "repro", "square")
    assert done.returncode == 0
    assert "note: list.txt cannot be had: whether it changed is not known" in done.stderr + done.stdout
    assert "Stage 'square' didn't change, skipping" in done.stdout


def test_the_demo_reads_nothing_outside(tmp_path: Path) -> None:
    stages = load_stages()
    readers = {stage.name for stage in stages if reads_outside(stage)}
    assert {"ingest", "train_segmenter", "train_clip"} <= readers
    assert not {"validate", "filter", "gate"} & readers
    assert write_fingerprints(tmp_path, stages, load_sections(root=ROOT)) == []
    assert json.loads((tmp_path / "artifacts/outside/ingest").read_text()) == {}
    assert compute_cache_keys(tmp_path, stages, load_sections(root=ROOT), {}, "abc") == {}


def test_the_stages_are_not_loaded_where_nothing_was_outside(tmp_path: Path) -> None:
    stages, sections = load_stages(), load_sections(root=ROOT)
    for name in DECLARED:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert not is_known_empty(tmp_path)
    sections["train_segmenter"]["init_from"] = "OWNER/segmenter@main"
    write_fingerprints(tmp_path, stages, sections)
    remember_if_empty(tmp_path, stages, sections)
    assert is_known_empty(tmp_path)
    (tmp_path / "OWNER/segmenter@main").mkdir(parents=True)
    assert not is_known_empty(tmp_path)
    (tmp_path / "OWNER/segmenter@main").rmdir()
    (tmp_path / "params.yaml").write_text("other")
    assert not is_known_empty(tmp_path)


def test_a_manifests_list_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages, sections = load_stages(), load_sections("canvas-xl", ROOT)
    (tmp_path / "data").mkdir()
    (tmp_path / "list.csv").write_text("photo\na.jpg\n")
    sections["ingest"]["manifest"] |= {"path": "../list.csv", "format": "csv"}

    def find_key() -> str:
        return compute_cache_keys(tmp_path, stages, sections, {"data_uri": "s3://data"}, "abc")["ingest"]

    first = find_key()
    assert first == find_key()
    (tmp_path / "list.csv").write_text("photo\na.jpg\nb.jpg\n")
    second = find_key()
    sections["ingest"]["seed"] = 7
    assert len({first, second, find_key()}) == 3
    assert write_fingerprints(tmp_path, stages, sections)[0].startswith("ingest reads ../list.csv: md5 ")
    (tmp_path / "list.csv").unlink()
    assert find_key() != find_key()
    assert "whether it changed is not known, so ingest runs again" in capsys.readouterr().err
    (tmp_path / "data/list.csv").write_text("photo\na.jpg\n")
    sections["ingest"]["manifest"]["path"] = "list.csv"
    assert compute_cache_keys(tmp_path, stages, sections, {}, "abc") == {}


def test_weights_on_this_machine_are_outside(tmp_path: Path) -> None:
    stages, sections = load_stages(), load_sections(root=ROOT)
    sections["train_segmenter"]["init_from"] = "parts/segmenter"
    (tmp_path / "parts/segmenter").mkdir(parents=True)
    lines = []
    for weights in ("one", "two"):
        (tmp_path / "parts/segmenter/model.safetensors").write_text(weights)
        lines += write_fingerprints(tmp_path, stages, sections)
    assert len(set(lines)) == len(lines)
    assert all(" reads parts/segmenter: md5 " in line for line in lines)
    assert "train_segmenter" in {line.split()[0] for line in lines}
    assert compute_cache_keys(tmp_path, stages, sections, {}, "abc") == {}


def test_a_cache_key_reaches_kubeflow() -> None:
    stages = [stage for stage in load_stages() if stage.name in ("ingest", "filter")]
    text = compile_pipelines(stages, read_cluster(ROOT / "pipelines/cluster.yaml"), cache_keys={"ingest": "k" * 32})
    specification = next(yaml.safe_load_all(text["train"]))
    options = {name: task["cachingOptions"] for name, task in specification["root"]["dag"]["tasks"].items()}
    assert options["ingest"] == {"enableCache": True, "cacheKey": "k" * 32}
    assert options["filter"] == {"enableCache": True}
