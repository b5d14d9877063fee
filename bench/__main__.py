"""Run every bench in a process of its own, one after the other."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import bench


def main() -> int:
    failed = []
    for module in sorted(found.name for found in pkgutil.iter_modules(bench.__path__) if found.name != "__main__"):
        print(f"\n== python -m bench.{module}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{module}"], check=False).returncode:
            failed.append(module)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
