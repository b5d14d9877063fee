"""Text encoders as trained, tuned on images, and tuned on images and neighbours, at equal seconds of the denoiser.

    OMP_NUM_THREADS=2 python -m bench.text [--seconds 240] [--seeds 0 1 2] [--products 16] [--profile demo]

It needs artifacts/ and models/ of a finished run. Each arm is stage train_text with `profiles/text.yaml` and its own
values, then `encode` with these towers. Then the denoiser of the profile trains on product inpainting from scratch, for
so many seconds at every seed, and generates the same products before the same prompts. It writes text.md, text.json and
text.png into --out: retrieval at every width, probes of text states, held-out loss, scene accuracy and KID, with 95 %
intervals by product, and the differences. By arithmetic 65 minutes with the values above on two cores: twice 2 to
tune, twice 90 s to encode, nine trainings of 4, and about 2 to judge each. Run it on an idle machine: seconds are
held equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from canvas.terminal import strip_controls

NEEDED = (
    *(f"artifacts/{name}" for name in ("pins", "kept", "truth", "masks", "captions")),
    *(f"models/{name}" for name in ("vae", "clip", "segmenter", "judges")),
)
"""Folders of a finished run."""


def measure(seconds: float, seeds: Sequence[int], products: int | None, profile: str, root: Path, out: Path) -> str:
    """Tune, train and judge all arms, write the three files, and return the page."""
    from bench.families import judging
    from bench.families.training import Sources, train_for_seconds
    from bench.text.arms import ARMS, build_arm
    from bench.text.scores import average_hits, compare_hits, score_encoders

    sources = Sources(root, out / "work")
    arms = [build_arm(name, profile, sources) for name in ARMS]
    hits = {arm.name: score_encoders(arm, sources) for arm in arms}
    jury = judging.Jury.read(arms[0].sections, products, sources)
    figures: dict[str, list[Mapping[str, float]]] = {arm.name: [] for arm in arms}
    verdicts: dict[str, list[judging.Verdict]] = {arm.name: [] for arm in arms}
    images: dict[str, Any] = {}
    for seed in seeds:
        for arm in arms:  # in turn, so that a machine that slows down slows all
            trained = train_for_seconds(arm, seconds, seed, sources)
            arm_images, verdict = jury.generate(arm, trained, seed)
            images.setdefault(arm.name, arm_images)
            figures[arm.name].append(trained.figures)
            verdicts[arm.name].append(verdict)
    summaries = []
    for arm in arms:
        arm_figures = figures[arm.name]
        means = {key: sum(figure[key] for figure in arm_figures) / len(arm_figures) for key in arm_figures[0]}
        summary = judging.summarize_verdicts(verdicts[arm.name])
        summaries.append({"name": arm.name, "parameters": arm.parameters, "figures": means, "summary": summary})
    encoders = {name: {key: average_hits(scores) for key, scores in of_arm.items()} for name, of_arm in hits.items()}
    gains = {}
    for before, after in zip(list(ARMS), list(ARMS)[1:], strict=False):
        of_text = {key: compare_hits(scores, hits[before][key]) for key, scores in hits[after].items()}
        of_images = judging.compare_verdicts(verdicts[after], verdicts[before])
        gains[f"{after} over {before}"] = of_text | of_images
    page = "\n".join(
        [
            format_encoders(encoders),
            judging.format_table(summaries, seconds, "Denoisers"),
            "## Differences, query by query and image by image\n",
            *(
                f"- {name}: " + ", ".join(f"{key} {gain:+.3f}" for key, gain in of_name.items())
                for name, of_name in gains.items()
            ),
            f"\n{len(jury.pins)} held-out products, {len(jury.prompts)} prompts, seeds {', '.join(map(str, seeds))}.",
        ]
    )
    report = {"seconds": seconds, "encoders": encoders, "denoisers": summaries, "runs": figures, "differences": gains}
    judging.write_report(out / "text.json", report)
    (out / "text.md").write_text(page + "\n", encoding="utf-8")
    judging.draw_sheet(jury, images).save(out / "text.png")
    return page


def format_encoders(encoders: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table of what text encoders know, a measure a row."""
    lines = [
        "## Text encoders",
        "",
        " | ".join(["", "recall@1", *encoders, ""]).strip(),
        " | ".join(["", *["---"] * (len(encoders) + 1), ""]).strip(),
    ]
    for measure_name in next(iter(encoders.values())):
        cells = [format(of_arm[measure_name], ".3f") for of_arm in encoders.values()]
        lines.append(" | ".join(["", measure_name, *cells, ""]).strip())
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.text", description="Text encoders frozen, tuned, with neighbours.")
    parser.add_argument("--seconds", type=float, default=240.0, help="of each denoiser's training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights, batches, noise and images")
    parser.add_argument("--products", type=int, help="held-out ones; by default as evaluate_backdrop has them")
    parser.add_argument("--profile", default="demo", help="whose encoders, denoiser and frames are used")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the run's artifacts/ and models/")
    parser.add_argument("--out", type=Path, default=Path("reports/text"))
    options = parser.parse_args(arguments)
    if missing := [path for path in NEEDED if not (options.root / path).is_dir()]:
        print(f"bench.text: {', '.join(missing)} missing: run `make demo` first", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    places = options.root.resolve(), options.out
    try:
        page = measure(options.seconds, options.seeds, options.products, options.profile, *places)
    except ValueError as error:
        print(strip_controls(f"bench.text: {error}"), file=sys.stderr)
        return 1
    print(page)
    print(f"bench.text: {options.out}/text.md, text.json and text.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
