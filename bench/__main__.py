"""Run every bench in a process of its own, one after the other."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import bench

HELPERS = ("__main__", "graph", "measurement", "models")
GRAPH = ("graph.twice", "graph.kills")
LONG = ("align", "families", "text")
"""Benches that train for an hour: they are run by name."""


def main() -> int:
    failures = []
    names = sorted({module.name for module in pkgutil.iter_modules(bench.__path__)} - {*HELPERS, *LONG})
    for name in (*names, *GRAPH):
        print(f"\n== python -m bench.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failures.append(name)
    if failures:
        print(f"failed: {', '.join(failures)}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
