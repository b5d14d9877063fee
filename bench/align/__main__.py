"""Does an alignment with rewards make images better than no alignment, and at how many images?

    OMP_NUM_THREADS=2 python -m bench.align [--arms nft awm ppo] [--seeds 0 1 2] [--once unguarded] [--profile tiny]
        [--steps 32] [--checks 4] [--prompts 160] [--check-prompts 80] [--guidance 4]
        [--root .] [--out reports/align-bench]

It needs artifacts/ and models/ of a full run. Each arm is section `align` of params.yaml with values of its own, at
every seed; those of `--once` at the first seed alone. All start from the same generator, whose images are judged once a
seed. It writes alignments.md (changes since the start with intervals over held-out products, by the judge that no
reward is made of), alignments.json (the same, and every check), curves.png (rewards against gold) and before-after.png.

`unguarded` is nft without the denoising loss and without the guard, three times as long: its last weights are judged,
and show what rewards are hacked to; of the others the best check's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.align.arms import ARMS, TRAIN
from canvas.terminal import strip_controls
from lifecycle.declare.params import load_sections
from lifecycle.declare.profiles import merge_sections

if TYPE_CHECKING:  # it loads torch
    from bench.align.trials import Trial, Trials

NEEDED = (
    *(f"artifacts/{name}" for name in ("pins", "kept", "masks", "captions", "shards")),
    *(f"models/{name}" for name in ("clip", "vae", "inpaint", "segmenter", "reward", "judges")),
)
"""Folders of a finished run."""


def measure(
    arms: Sequence[str], seeds: Sequence[int], once: Sequence[str], sections: Any, changes: Any, root: Path, out: Path
) -> str:
    """Run and judge all arms, write the four files after every seed, and return the page."""
    from bench.align.judging import describe_trial
    from bench.align.trials import Trials

    trials, page = Trials(sections, changes, root), ""
    runs: list[Trial] = []
    for seed in seeds:  # all arms of a seed, so that a machine that slows down slows all
        for arm in (*arms, *(once if seed == seeds[0] else ())):
            runs.append(trials.run(arm, seed))
            row = describe_trial(runs[-1], trials.get_start(seed))
            print(json.dumps({name: value for name, value in row.items() if name != "checks"}), flush=True)
        page = write_report(trials, runs, out)
    return page


def write_report(trials: Trials, runs: Sequence[Trial], out: Path) -> str:
    """Write the four files of these runs, and return the page."""
    from bench.align.drawing import draw_before_and_after, draw_curves
    from bench.align.judging import describe_trial, format_table, summarize
    from evaluation.statistics.intervals import Interval

    starts = {run.seed: trials.get_start(run.seed) for run in runs}
    summaries = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        arm_runs = [run for run in runs if run.arm == arm]
        before = [starts[run.seed] for run in arm_runs]
        summaries[arm] = summarize(trials.judge.engaged, before, [run.judgment for run in arm_runs])
    rows = [describe_trial(run, starts[run.seed]) for run in runs]
    first = starts[runs[0].seed]
    lines = [
        format_table(list(starts.values()), summaries, runs),
        "",
        f"{len(first.images.images)} images of {len(set(first.images.rows))} held-out prompts and "
        f"{len(set(first.images.products))} products, seeds {', '.join(map(str, starts))}. Changes since the start, "
        "with 95 % intervals over products; diversity within a prompt is a share of the start's.",
        "",
        *(
            f"- {row['arm']}, seed {row['seed']}: gold {row['gold_gain']:+.3f}, best at step {row['best_step']} of "
            f"{row['checks'][-1]['step']}, {'kept' if row['kept'] else 'left out'}: {row['reason']}"
            for row in rows
        ),
    ]
    page = "\n".join(lines) + "\n"

    def encode(value: Any) -> list[float]:
        assert isinstance(value, Interval)
        return [value.mean, value.low, value.high]

    (out / "alignments.md").write_text(page, encoding="utf-8")
    report = {"arms": summaries, "runs": rows}
    (out / "alignments.json").write_text(json.dumps(report, indent=1, default=encode) + "\n", encoding="utf-8")
    draw_curves(runs, out / "curves.png")
    (out / "before-after.png").write_bytes(draw_before_and_after(first, runs[0].judgment))
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.align", description="Alignments with rewards, against none.")
    parser.add_argument("--arms", nargs="+", default=["nft", "nft-diverse", "awm", "ppo"], choices=list(ARMS))
    parser.add_argument("--once", nargs="*", default=["unguarded"], choices=list(ARMS), help="at the first seed alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--profile", help="by default params.yaml alone")
    parser.add_argument("--steps", type=int, default=32, help="of the optimizer, of every arm")
    parser.add_argument("--checks", type=int, default=4, help="of the guard, in a run")
    parser.add_argument("--prompts", type=int, default=160, help="held-out ones of the verdict")
    parser.add_argument("--check-prompts", type=int, default=80, help="held-out ones of a check")
    parser.add_argument("--guidance", type=float, help="scale of judged images; by default the recommended one")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the run's artifacts/ and models/")
    parser.add_argument("--out", type=Path, default=Path("reports/align-bench"))
    options = parser.parse_args(arguments)
    if missing := [path for path in NEEDED if not (options.root / path).is_dir()]:
        print(f"bench.align: {', '.join(missing)} missing: run `make demo` first", file=sys.stderr)
        return 1
    sections = load_sections(options.profile) if options.profile else load_sections()
    options.out.mkdir(parents=True, exist_ok=True)
    override = {"samples": options.checks, "checkpoints": 1}
    train = dict(sections["align"]["train"] or TRAIN) | {"steps": options.steps, "override": override}
    guard = {"prompts": options.check_prompts, "final_prompts": options.prompts}
    changes = {"train": train, "guard": guard}
    if options.guidance is not None:
        sections = merge_sections(sections, {"sampling": {"guidance_scale": options.guidance}})
    try:
        page = measure(
            options.arms, options.seeds, options.once, sections, changes, options.root.resolve(), options.out
        )
    except ValueError as error:
        print(strip_controls(f"bench.align: {error}"), file=sys.stderr)
        return 1
    print(page)
    print(f"bench.align: {options.out}/alignments.md, alignments.json, curves.png and before-after.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
