"""Does an alignment with rewards make images better than no alignment, and at how many images?

    OMP_NUM_THREADS=2 python -m bench.align [--arms nft awm ppo unguarded] [--seeds 0 1 2] [--profile tiny]
        [--steps 40] [--prompts 160]

Each arm is the stage `align` with params.yaml's values and its own, at every seed, on models/ and artifacts/ of a full
run. It prints a JSON line for each run: gold before and after on held-out prompts with the gain's interval, KID to
engaged pins, diversity within a prompt, growth of the product, images rolled out, seconds, and rewards against gold by
step; then one line an arm, the gain over all seeds with its interval over seeds. `unguarded` is nft without the
denoising loss, to the last step: its curve shows what the reward is hacked to, its gain is of the best check as in the
other arms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bench.align.arms import ARMS, REWARDS, run_arm, summarize_arm
from bench.measurement import ROOT
from lifecycle.declare.params import load_sections


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each run and arm; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.align")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--profile", help="by default params.yaml alone")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=160, help="held-out ones of the verdict")
    options = parser.parse_args(arguments)
    if not (ROOT / "models" / "reward").is_dir() or not (ROOT / "artifacts" / "shards").is_dir():
        print(
            "bench.align: models/ and artifacts/ are missing: run `dvc repro tune_engaged train_reward train_judges` "
            "first",
            file=sys.stderr,
        )
        return 1
    sections = load_sections(options.profile) if options.profile else load_sections()
    train = {"batch_size": 48, "learning_rate": 3e-4, "warmup_steps": 2, "override": {"samples": 4}}
    train = sections["align"]["train"] or train
    changes = {
        "rewards": dict(REWARDS),
        "train": train | {"steps": options.steps},
        "guard": {"final_prompts": options.prompts},
    }
    for arm in options.arms:
        runs = []
        for seed in options.seeds:
            runs.append(run_arm(arm, seed, sections, changes))
            print(json.dumps(runs[-1]), flush=True)
        print(json.dumps(summarize_arm(runs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
