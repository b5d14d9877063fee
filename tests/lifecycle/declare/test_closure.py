"""Which files a stage's code is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lifecycle.declare.closure import compute_code_digest, find_import_closure, list_code

FILES = {
    "components/__init__.py": '"""One file a stage."""\n',
    "components/train.py": """\
from canvas.models import unet
from components.artifacts import Model
from lifecycle.declare.stage import stage
def train():
    import canvas.lazy
""",
    "components/other.py": "",
    "components/artifacts.py": "from canvas import types_only\n",
    "canvas/__init__.py": "",
    "canvas/lazy.py": "import os\nfrom . import near\n",
    "canvas/near.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from canvas import types_only\n",
    "canvas/types_only.py": "",
    "canvas/models/__init__.py": "from .parts import Block",
    "canvas/models/unet.py": "from ..near import x",
    "canvas/models/parts.py": "class Block: ...",
    "lifecycle/declare/stage.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_it_imports_and_no_more(root: Path) -> None:
    assert find_import_closure("components.train", root) == [
        "canvas/lazy.py",
        "canvas/models/__init__.py",
        "canvas/models/parts.py",
        "canvas/models/unet.py",
        "canvas/near.py",
        "components/train.py",
    ]


def test_a_first_party_import_of_nothing(root: Path) -> None:
    (root / "canvas" / "near.py").write_text("from canvas.gone import x")
    with pytest.raises(ValueError, match=r"canvas/near.py imports canvas.gone, which is no module of this project"):
        find_import_closure("components.train", root)


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("canvas/models/parts.py", True),
        ("canvas/lazy.py", True),
        ("components/other.py", False),
        ("components/artifacts.py", False),
        ("lifecycle/declare/stage.py", False),
    ],
)
def test_the_digest_changes_with_the_code_that_runs(root: Path, file: str, matters: bool) -> None:
    before = compute_code_digest("components.train", root)
    (root / file).write_text(FILES[file] + "\n# changed\n")
    assert (compute_code_digest("components.train", root) != before) == matters


def test_the_list_of_code_is_one_that_md5sum_checks(root: Path) -> None:
    (root / "list").write_text(list_code("components.train", root))
    checked = subprocess.run(["md5sum", "--check", "list"], cwd=root, capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == [f"{file}: OK" for file in find_import_closure("components.train", root)]
