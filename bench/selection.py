"""What the best of N is worth and costs, to judges that did not choose, and what dropping candidates early saves.

    OMP_NUM_THREADS=2 python -m bench.selection

Held-out products, each with every prompt of params.yaml, sixteen candidates each. The reward model chooses, told the
prompt or not. Judges: the two scene judges, who saw neither the reward model nor the generator
(evaluation.judges.scenes): whether they see the prompted scene, and how likely they find it, which says more of one
picture; and the first text-image encoder's cosine of picture and prompt. The generator's denoiser reads that encoder's
text; the reward model does not. It needs models/ and artifacts/ of a full run; it prints JSON. Intervals resample
items.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import TextTower, load_clip
from canvas.features.perceptual import compute_image_embeddings
from canvas.inference.pipeline import CandidateSelector, CanvasPipeline
from canvas.inference.product import Pixels, Product
from canvas.inference.selection import (
    HALVING,
    DropStep,
    compute_rewards,
    count_image_steps,
    plan_drops,
    select_best,
    select_ranking_score,
)
from canvas.pins.captions import format_caption
from canvas.pins.pixels import bytes_to_tensor
from canvas.pins.products import ProductPin, load_product_pins
from canvas.pins.scene_views import crop_center_square
from canvas.reward.model import RewardModel, load_reward
from evaluation.generator.best_of import (
    compute_lift,
    compute_rank_agreement,
    score_best_of,
    select_by_halving,
    select_scores,
)
from evaluation.judges.features import extract_scene_features
from evaluation.judges.judges import Judges
from evaluation.statistics.intervals import Interval, bootstrap_mean
from lifecycle.declare.params import load_sections

CANDIDATES, COUNTS, STEPS, GUIDANCE = 16, (1, 2, 4, 8, 16), 20, 3.0
PRODUCTS, TIMED = 10, 3
GUESS_STEPS = (3, 4, 5, 6, 8, 9, 10, 12, 14)
SCHEDULES: Mapping[str, tuple[DropStep, ...]] = {
    "the command line's": HALVING,
    "one cut": (DropStep(0.4, 0.125),),
    "later": (DropStep(0.3, 0.5), DropStep(0.5, 0.125)),
    "three cuts": (DropStep(0.2, 0.5), DropStep(0.4, 0.25), DropStep(0.6, 0.125)),
}
SELECTORS = ("told the prompt", "not told")


@dataclass
class Item:
    """One product and prompt, its candidates, and what was said of them."""

    pin: ProductPin
    prompt: str
    seed: int
    pictures: list[Pixels] = field(default_factory=list)
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # selector -> of the candidates
    guesses: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # steps done -> told the prompt

    @property
    def mask(self) -> Image.Image:
        return Image.fromarray((self.pin.mask * 255).astype(np.uint8))


def main() -> int:
    root = Path()
    missing = [place for place in ("models/canvas", "models/reward", "artifacts/pins") if not (root / place).is_dir()]
    if missing:
        print(f"bench.selection needs {', '.join(missing)}: run the whole pipeline first", file=sys.stderr)
        return 1
    prompts = load_sections("demo", root)["backgrounds"]["prompts"]
    tables = [root / "artifacts" / name for name in ("pins", "kept", "masks", "captions")]
    chosen = load_product_pins(*tables, splits=("unseen_product", "unseen_both"), count=PRODUCTS)
    pipeline, reward = CanvasPipeline.from_pretrained(root / "models" / "canvas"), load_reward(root / "models/reward")
    pipeline.merge_lora()
    pipeline.set_progress_bar_config(disable=True)
    items = [
        Item(pin, format_caption(pin.product, prompt), 1000 * place)
        for place, prompt in enumerate(prompts)
        for pin in chosen
    ]
    for item in tqdm(items, unit="item"):
        generate_candidates(item, pipeline, reward)
    judges = score_by_judges(root, items, pipeline.text_encoder)
    figures = {
        "items": len(items),
        "candidates": CANDIDATES,
        "steps": STEPS,
        "best_of": {selector: summarize_by_count(items, selector, judges) for selector in SELECTORS},
        "rank_agreement_of_guesses": {
            step: compute_rank_agreement(stack_scores(items, step), stack_scores(items, SELECTORS[0]))
            for step in GUESS_STEPS
        },
        "dropping": {name: measure_drops(items, drops, judges) for name, drops in SCHEDULES.items()},
        "cost": measure_costs(items, pipeline, reward),
    }
    print(json.dumps(figures, indent=1))
    return 0


def generate_candidates(item: Item, pipeline: CanvasPipeline, reward: RewardModel) -> None:
    """All candidates to the end, with the score of every guess on the way."""

    def guessing(step: int) -> CandidateSelector:
        def note(product: Product, pictures: list[Pixels]) -> Sequence[int]:
            item.guesses[step] = (
                select_ranking_score(compute_rewards(reward, product, pictures, item.prompt)).double().numpy()
            )
            return range(len(pictures))

        return note

    made = pipeline(
        item.pin.image,
        item.prompt,
        mask=item.mask,
        seed=item.seed,
        num_candidates=CANDIDATES,
        candidates_per_pass=CANDIDATES,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        selectors={step: guessing(step) for step in GUESS_STEPS},
    )
    item.pictures = [np.array(image) for image in made.images]
    for selector, prompt in zip(SELECTORS, (item.prompt, ""), strict=True):
        item.scores[selector] = (
            select_ranking_score(compute_rewards(reward, made.product, item.pictures, prompt)).double().numpy()
        )


def score_by_judges(root: Path, items: Sequence[Item], tower: TextTower) -> dict[str, NDArray[np.float64]]:
    """Judge -> what it says of all candidates (items, CANDIDATES)."""
    side = int(load_sections("demo", root)["frames"]["side"])
    judges = Judges.load(root / "models" / "judges")
    clip = load_clip(root / "models" / "clip" / "first").eval()
    found: dict[str, list[list[float]]] = {}
    for item in tqdm(items, desc="judges", unit="item"):
        views = np.stack([crop_center_square(Image.fromarray(picture), side) for picture in item.pictures])
        asked = judges.match_prompt(item.prompt)
        assert asked is not None, item.prompt
        features = extract_scene_features(views)
        seen, chances = judges.recognize_scenes(features), judges.compute_probabilities(features, asked)
        for judge, name in enumerate(("scene", "scene_sharp")):
            found.setdefault(name, []).append([float(both[judge] == asked) for both in seen])
            found.setdefault(f"{name}_chance", []).append(chances[:, judge].tolist())
        with torch.no_grad():
            text = clip.encode_text(tower.tokenize([item.prompt]), normalize=True)
            images = compute_image_embeddings(clip, bytes_to_tensor(torch.from_numpy(views).permute(0, 3, 1, 2)))
        found.setdefault("agreement", []).append((images @ text[0]).tolist())
    return {name: np.array(values) for name, values in found.items()}


def summarize_by_count(
    items: Sequence[Item], selector: str, judges: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Judge -> N -> what the best of N is worth, and how much more than a single one."""
    scores = stack_scores(items, selector)
    return {
        name: {
            count: {
                "mean": round_interval(bootstrap_mean(list(score_best_of(scores, values, count)))),
                "lift": round_interval(
                    compute_lift(score_best_of(scores, values, count), score_best_of(scores, values, 1))
                ),
            }
            for count in COUNTS
        }
        for name, values in judges.items()
    }


def measure_drops(
    items: Sequence[Item], drops: Sequence[DropStep], judges: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """The share of the work that a schedule takes, and what it loses (below 0) against the best of all."""
    final = stack_scores(items, SELECTORS[0])
    schedule = plan_drops(drops, CANDIDATES, 1, STEPS)
    assert schedule.keys() <= set(GUESS_STEPS), f"{schedule}: note guesses after these steps"
    left = select_by_halving({step: stack_scores(items, step) for step in schedule}, final, schedule)
    return {
        "schedule": schedule,
        "share_of_calls": count_image_steps(drops, CANDIDATES, 1, STEPS) / (CANDIDATES * STEPS),
        "same_choice": float(np.mean(left == final.argmax(axis=1))),
        "change": {
            name: round_interval(compute_lift(select_scores(values, left), select_scores(values, final.argmax(axis=1))))
            for name, values in judges.items()
        },
        "lift": {
            name: round_interval(compute_lift(select_scores(values, left), values.mean(axis=1)))
            for name, values in judges.items()
        },
    }


def measure_costs(items: Sequence[Item], pipeline: CanvasPipeline, reward: RewardModel) -> dict[str, Any]:
    """Denoiser calls as counted and median seconds of the best of N, and of dropping early."""
    runs = {str(count): (count, ()) for count in COUNTS} | {"16, dropping early": (CANDIDATES, HALVING)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    calls: dict[str, int] = {}
    for item in items[:TIMED]:
        for name, (count, drops) in runs.items():
            clock = time.perf_counter()
            found = select_best(
                pipeline,
                reward,
                item.pin.image,
                item.prompt,
                mask=item.mask,
                candidates=count,
                top=1,
                seed=item.seed,
                drops=drops,
                candidates_per_pass=CANDIDATES,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
            )
            seconds[name].append(time.perf_counter() - clock)
            calls[name] = found.cost.denoiser_calls
    return {name: {"denoiser_calls": calls[name], "seconds": statistics.median(seconds[name])} for name in runs}


def stack_scores(items: Sequence[Item], of: str | int) -> NDArray[np.float64]:
    """Scores of a selector, or guesses after so many steps, of all items."""
    return np.stack([item.guesses[of] if isinstance(of, int) else item.scores[of] for item in items])


def round_interval(interval: Interval) -> list[float]:
    """Mean and both ends."""
    return [round(value, 4) for value in (interval.mean, interval.low, interval.high)]


if __name__ == "__main__":
    sys.exit(main())
