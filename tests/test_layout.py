"""The marks that keep the house easy to find one's way in (CONTRIBUTING.md)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
PACKAGES = ("canvas", "evaluation", "lifecycle", "pipelines", "bench")


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_stage_fits_a_screen() -> None:
    stages = [file for file in (ROOT / "components").glob("*.py") if file.stem not in ("artifacts", "__init__")]
    assert len(stages) > 30
    assert {file.name: count_lines(file) for file in stages if count_lines(file) > 80} == {}


def test_folder_has_a_dozen_files() -> None:
    files = Counter(file.parent for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    assert {str(folder): count for folder, count in files.items() if count > 15} == {}  # 14, and __init__


def test_file_has_at_most_400_lines() -> None:
    files = [file for package in (*PACKAGES, "components") for file in (ROOT / package).rglob("*.py")]
    assert {str(file.relative_to(ROOT)): count_lines(file) for file in files if count_lines(file) > 400} == {}


@pytest.mark.parametrize(
    ("name", "most"),
    [("params.yaml", 550), ("profiles/tiny.yaml", 150), ("profiles/canvas-xl.yaml", 350), ("dvc.yaml", 900)],
)
def test_file_can_be_held(name: str, most: int) -> None:
    assert count_lines(ROOT / name) <= most


def test_the_longest_files_of_tests_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
