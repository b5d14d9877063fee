"""`python3 -m bench.gpu`: measure training and sampling on this machine's GPU, as one JSON and one PNG.

Ten minutes at most: what does not fit into them is left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.wheels import unpack_missing

SECONDS = 540.0
"""After so many no further measurement begins, so that the command ends within ten minutes."""


def find_obstacle() -> str | None:
    """Return why nothing can be measured here; None: it can."""
    for module in ("torch", "transformers"):
        if find_spec(module) is None:
            return f"this Python has no {module}"
    import torch

    from canvas.device import explain_unusable_gpu

    if torch.cuda.is_available():
        return None
    return explain_unusable_gpu() or "this machine has no GPU"


def measure(out: Path, profiles: Sequence[Path], seconds: float) -> dict[str, Any]:
    """Measure one after the other, and write what is there after each."""
    from bench.gpu.measures import free_memory, learn_samples, list_measurements, shrink
    from bench.gpu.sheet import draw_sheet
    from bench.gpu.workload import Workload
    from canvas.device import default_device

    default_device()  # TF32, as everywhere
    workload, clock = Workload.read(*profiles), time.perf_counter()
    figures: dict[str, Any] = {
        "profile": "+".join(profile.stem for profile in profiles),
        "denoiser": workload.denoiser.kind,
    }
    targets = sampled = None
    for name, take in [("learning", None), *list_measurements(workload)]:
        spent = time.perf_counter() - clock
        if spent > seconds:
            figures[name] = {"left_out": f"{spent:.0f} seconds were over"}
            continue
        print(f"make gpu: {name}", flush=True)
        try:
            if take is None:
                figures[name], targets, sampled = learn_samples(shrink(workload))
            else:
                figures[name] = dict(take())
        except Exception as error:  # the others are worth having
            text = " ".join(str(error).split())
            figures[name] = {"error": f"{type(error).__name__}: {text[:500]}", "where": traceback.format_exc()[-1500:]}
        free_memory()
        (out / "gpu.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    add_shares(figures, workload.count_forward_flops())
    figures["seconds"] = time.perf_counter() - clock
    (out / "gpu.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    draw_sheet(figures, targets, sampled, out / "gpu.png")
    return figures


def add_shares(figures: dict[str, Any], forward_flops: int) -> None:
    """Add MFU: the share of the GPU's peak that the model's own operations make, three forward passes an image."""
    machine = figures.get("machine", {})
    for name, values in figures.items():
        if name.startswith(("training", "diffusers")) and "images_per_second" in values:
            rate = 3 * forward_flops * values["images_per_second"]
            values["flops"] = rate
            for share, peak in (("mfu", "peak_flops"), ("share_of_matmul", "matmul_flops")):
                values[share] = rate / machine[peak] if machine.get(peak) else None


def format_summary(figures: dict[str, Any]) -> str:
    """Return a line on each measurement."""
    lines = []
    for name, values in figures.items():
        if not isinstance(values, dict):
            continue
        if "error" in values or "left_out" in values:
            lines.append(f"  {name:20}{values.get('error') or values['left_out']}")
        elif "images_per_second" in values:
            mfu = f", MFU {values['mfu']:.1%}" if values.get("mfu") else ""
            memory = f", {values['peak_bytes'] / 2**30:.1f} GiB" if "peak_bytes" in values else ""
            plan = f" (plan: {values['planned_bytes'] / 2**30:.1f})" if "planned_bytes" in values else ""
            lines.append(f"  {name:20}{values['images_per_second']:,.1f} images/s{mfu}{memory}{plan}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status: 0 too where there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description="What this machine's GPU does with this code.")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"), help="folder of gpu.json and gpu.png")
    parser.add_argument(
        "--profile",
        type=Path,
        nargs="+",
        default=[Path("profiles/small.yaml")],
        help="whose denoiser is trained; of several overlays a later one wins, as small.yaml dit.yaml",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which no measurement begins")
    options = parser.parse_args(arguments)
    if (obstacle := find_obstacle()) is not None:
        print(f"make gpu: nothing measured, {obstacle}")
        return 0
    try:
        unpack_missing()
    except ValueError as error:
        print(f"make gpu: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    figures = measure(options.out, options.profile, options.seconds)
    print(format_summary(figures))
    print(f"make gpu: {options.out}/gpu.json and gpu.png, {figures['seconds']:.0f} s")
    failed = any(isinstance(values, dict) and "error" in values for values in figures.values())
    return 1 if failed or figures.get("tests", {}).get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
