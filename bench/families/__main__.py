"""UNet against transformer, on product inpainting from scratch: equal seconds, and equal parameters.

    OMP_NUM_THREADS=2 python -m bench.families [--seconds 480] [--seeds 0 1 2] [--products 16] [--profile demo]
        [--recipes bench/families/recipes/*.yaml]

It needs artifacts/ and models/ of a finished run: shards, autoencoder, text encoders, segmenter and judges. Three
denoisers train on the same pins with the params of train_inpaint, each for so many seconds: the UNet, the transformer
of the demo, and that transformer with as many single blocks as bring it nearest to the UNet's parameters.
Each recipe is an overlay of params, tried alone over the transformer. Every denoiser is assembled without LoRAs and
with the autoencoder's own decoder, and generates the same products before the same prompts. It writes families.md
(tables and differences), families.json and families.png into --out. Run it on an idle machine: seconds are what is
held equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canvas.terminal import strip_controls

NEEDED = (
    *(f"artifacts/{name}" for name in ("pins", "kept", "masks", "captions")),
    *(f"models/{name}" for name in ("vae", "clip", "text", "segmenter", "judges")),
)
"""Folders of a finished run."""


def measure(
    seconds: float,
    seeds: Sequence[int],
    products: int | None,
    profile: str,
    recipes: Sequence[Path],
    root: Path,
    out: Path,
) -> str:
    """Train and judge all contestants, write the three files, and return the page."""
    from bench.families import judging
    from bench.families.training import Sources, list_contestants, list_recipes, train_for_seconds

    sources = Sources(root, out / "work")
    contestants = [*list_contestants(profile, sources), *list_recipes(profile, recipes, sources)]
    jury = judging.Jury.read(contestants[0].sections, products, sources)
    rows: list[dict[str, Any]] = []
    verdicts: dict[str, list[judging.Verdict]] = {}
    images: dict[str, Any] = {}
    for seed in seeds:
        for contestant in contestants:  # in turn, so that a machine that slows down slows all
            trained = train_for_seconds(contestant, seconds, seed, sources)
            contestant_images, verdict = jury.generate(contestant, trained, seed)
            images.setdefault(contestant.name, contestant_images)
            verdicts.setdefault(contestant.name, []).append(verdict)
            rows.append({"name": contestant.name, "seed": seed, "figures": dict(trained.figures)})
    summaries: list[dict[str, Any]] = []
    for contestant in contestants:
        contestant_figures = [row["figures"] for row in rows if row["name"] == contestant.name]
        figures = {
            key: sum(figure[key] for figure in contestant_figures) / len(contestant_figures)
            for key in contestant_figures[0]
        }
        summary = judging.summarize_verdicts(verdicts[contestant.name])
        summaries.append(
            {"name": contestant.name, "parameters": contestant.parameters, "figures": figures, "summary": summary}
        )
    unet, dit, equal, *alone = summaries
    rivals = {dit["name"]: unet["name"], equal["name"]: unet["name"]} | {row["name"]: dit["name"] for row in alone}
    gains = {name: judging.compare_verdicts(verdicts[name], verdicts[rival]) for name, rival in rivals.items()}
    page = "\n".join(
        [
            judging.format_table([unet, dit], seconds, "Equal seconds"),
            judging.format_table([unet, equal], seconds, "Equal seconds and parameters"),
            *([judging.format_table([dit, *alone], seconds, "Recipes, each alone")] if alone else []),
            "## Differences, image by image\n",
            *(
                f"- {name} over {rivals[name]}: "
                + ", ".join(f"{measure} {gain:+.3f}" for measure, gain in of_name.items())
                for name, of_name in gains.items()
            ),
            f"\n{len(jury.pins)} held-out products, {len(jury.prompts)} prompts, seeds {', '.join(map(str, seeds))}.",
        ]
    )
    report = {"seconds": seconds, "runs": rows, "contestants": summaries, "differences": gains}
    judging.write_report(out / "families.json", report)
    (out / "families.md").write_text(page + "\n", encoding="utf-8")
    judging.draw_sheet(jury, images).save(out / "families.png")
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.families", description="UNet against transformer at equal seconds.")
    parser.add_argument("--seconds", type=float, default=480.0, help="of training, each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights, batches, noise and images")
    parser.add_argument("--products", type=int, help="held-out ones; by default as evaluate_backdrop has them")
    parser.add_argument("--recipes", type=Path, nargs="*", default=[], help="overlays of params, each tried alone")
    parser.add_argument("--profile", default="demo", help="whose UNet, autoencoder and frames are used")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the run's artifacts/ and models/")
    parser.add_argument("--out", type=Path, default=Path("reports/families"))
    options = parser.parse_args(arguments)
    if missing := [path for path in NEEDED if not (options.root / path).is_dir()]:
        print(f"bench.families: {', '.join(missing)} missing: run `make demo` first", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        page = measure(
            options.seconds,
            options.seeds,
            options.products,
            options.profile,
            options.recipes,
            options.root.resolve(),
            options.out,
        )
    except ValueError as error:
        print(strip_controls(f"bench.families: {error}"), file=sys.stderr)
        return 1
    print(page)
    print(f"bench.families: {options.out}/families.md, families.json and families.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
