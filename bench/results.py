"""Do seeded results stay the same to the bit? Digests of all that the stages of profile tiny make.

`python -m bench.results before.json` writes them; after a change, `python -m bench.results after.json before.json`
names what differs. Run both with the same number of threads (OMP_NUM_THREADS=1). Times, versions, pages and the order
of keys do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.graph.project import get_paths, run_graph, write_project
from bench.measurement import ROOT

IGNORED = ("second", "images_per", "pins_per", "memory", "duration", "_version", "runs")
"""Parts of keys whose values differ from run to run."""


def digest_stages(root: Path) -> dict[str, str]:
    """Run every stage of profile tiny in `root`, and return output file -> digest of its content."""
    digests: dict[str, str] = {}
    for stage in run_graph(root):
        for output in get_paths(stage)[1].values():
            for file in sorted([output] if output.is_file() else output.rglob("*")):
                if file.is_file() and file.suffix != ".html" and "docs" not in file.parts:
                    digests[str(file)] = digest_content(root / file)
    return digests


def digest_content(file: Path) -> str:
    """Return the digest of what a file says: tensors, rows, pixels or values, whatever its bytes are."""
    match file.suffix:
        case ".safetensors":
            from safetensors.numpy import load_file

            arrays = sorted(load_file(file).items())
            parts = [f"{name}{array.dtype}{array.shape}".encode() + array.tobytes() for name, array in arrays]
        case ".parquet":
            import pyarrow.parquet as pq

            parts = [repr(pq.read_table(file).to_pydict()).encode()]
        case ".png":
            from PIL import Image

            image = Image.open(file)
            parts = [f"{image.mode}{image.size}".encode(), image.tobytes()]
        case ".json":
            parts = [json.dumps(_drop_ignored(json.loads(file.read_text())), sort_keys=True).encode()]
        case _:
            parts = [file.read_bytes()]
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()


def _drop_ignored(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: part for key, part in value.items() if not any(ignored in key for ignored in IGNORED)}
        return {key: _drop_ignored(part) for key, part in kept.items()}
    if isinstance(value, list):
        parts = [_drop_ignored(part) for part in value]
        return sorted(parts) if all(isinstance(part, str) for part in parts) else parts
    return value


def main(arguments: list[str]) -> int:
    """Write digests to the first file; with a second one, print what differs from it, and return 1 if anything does."""
    target, *before = [Path(argument).resolve() for argument in arguments or [".work/results.json"]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root)
        digests = digest_stages(root)
        os.chdir(ROOT)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    print(f"{len(digests)} files in {target}")
    if not before:
        return 0
    earlier = json.loads(before[0].read_text(encoding="utf-8"))
    changed = sorted(file for file in earlier.keys() | digests.keys() if earlier.get(file) != digests.get(file))
    print("\n".join(changed) or "all as before")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
