"""What the best of N is worth and costs, to judges that did not choose, and what dropping candidates early saves.

    OMP_NUM_THREADS=2 python -m bench.selection

Sixteen candidates of held-out products with every prompt of params.yaml. The reward model selects, with the prompt or
without. Judges: the two scene judges, which are independent of reward model and generator (evaluation.judges.judges):
whether they recognize the prompted scene, and its probability, which says more of one image; and the first text-image
encoder's cosine of image and prompt. The generator's denoiser reads that encoder's text; the reward model does not. It
needs models/ and artifacts/ of a full run; it prints JSON. Intervals resample items.
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
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from canvas.clip.model import TextTower, load_clip
from canvas.inference import selection
from canvas.inference.generation.candidates import CandidateSelector
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import Product
from canvas.inference.selection import HALVING, DropStep
from canvas.pins.captions import format_caption
from canvas.pins.images import Pixels
from canvas.pins.products import ProductPin, load_product_pins
from canvas.pins.scene_views import stack_views
from canvas.reward.preference import Reward, fetch_reward
from evaluation.generator.best_of import compute_rank_agreement, score_best_of, select_by_halving, select_scores
from evaluation.generator.candidates import embed_images, embed_prompts
from evaluation.judges.features import extract_scene_features
from evaluation.judges.judges import Judges
from evaluation.statistics.intervals import bootstrap_mean
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
JUDGES = ("scene", "scene_chance", "scene_sharp", "scene_sharp_chance", "agreement")
SELECTORS = ("told the prompt", "not told")

Values = NDArray[np.float64]


@dataclass
class Item:
    """One product and prompt, its candidates, and their scores."""

    pin: ProductPin
    prompt: str
    seed: int
    images: list[Pixels] = field(default_factory=list)
    scores: dict[str, Values] = field(default_factory=dict)  # selector -> of the candidates
    guesses: dict[int, Values] = field(default_factory=dict)  # steps done -> of the candidates, with the prompt

    @property
    def mask(self) -> Image.Image:
        return Image.fromarray((self.pin.mask * 255).astype(np.uint8))


def main() -> None:
    root = Path()
    missing = [path for path in ("models/canvas", "models/reward", "artifacts/pins") if not (root / path).is_dir()]
    if missing:
        sys.exit(f"bench.selection needs {', '.join(missing)}: run the whole pipeline first")
    prompts = load_sections("demo", root)["backgrounds"]["prompts"]
    tables = [root / "artifacts" / name for name in ("pins", "kept", "masks", "captions")]
    pins = load_product_pins(*tables, splits=("unseen_product", "unseen_both"), count=PRODUCTS)
    pipeline, reward = CanvasPipeline.from_pretrained(root / "models" / "canvas"), fetch_reward(root / "models/reward")
    pipeline.merge_lora()
    pipeline.set_progress_bar_config(disable=True)
    items = [
        Item(pin, format_caption(pin.product, prompt), 1000 * number)
        for number, prompt in enumerate(prompts)
        for pin in pins
    ]
    for item in tqdm(items, unit="item"):
        generate_candidates(item, pipeline, reward)
    final = np.stack([item.scores[SELECTORS[0]] for item in items])
    judged = judge_candidates(root, items, pipeline.text_encoder_2)
    figures = {
        "items": len(items),
        "candidates": CANDIDATES,
        "steps": STEPS,
        "best_of": {selector: summarize_by_count(items, selector, judged) for selector in SELECTORS},
        "rank_agreement_of_guesses": {
            step: compute_rank_agreement(np.stack([item.guesses[step] for item in items]), final)
            for step in GUESS_STEPS
        },
        "dropping": {name: measure_drops(items, drops, judged) for name, drops in SCHEDULES.items()},
        "cost": measure_costs(items, pipeline, reward),
    }
    print(json.dumps(figures, indent=1))


def generate_candidates(item: Item, pipeline: CanvasPipeline, reward: Reward) -> None:
    """Generate all candidates to the end; score them, and every guess on the way."""

    def score(product: Product, images: Sequence[Pixels], prompt: str) -> Values:
        scores = selection.select_ranking_score(selection.compute_rewards(reward, product, images, prompt))
        return np.asarray(scores.double().numpy())

    def record_guesses(step: int) -> CandidateSelector:
        def keep_all(product: Product, images: list[Pixels]) -> Sequence[int]:
            item.guesses[step] = score(product, images, item.prompt)
            return range(len(images))

        return keep_all

    result = pipeline(
        item.pin.image,
        item.prompt,
        mask=item.mask,
        seed=item.seed,
        num_candidates=CANDIDATES,
        candidates_per_pass=CANDIDATES,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        selectors={step: record_guesses(step) for step in GUESS_STEPS},
    )
    item.images = [np.array(image) for image in result.images]
    for selector, prompt in zip(SELECTORS, (item.prompt, ""), strict=True):
        item.scores[selector] = score(result.product, item.images, prompt)


def judge_candidates(root: Path, items: Sequence[Item], tower: TextTower) -> dict[str, Values]:
    """Return judge -> its values of all candidates, (items, CANDIDATES)."""
    side = int(load_sections("demo", root)["frames"]["side"])
    judges = Judges.load(root / "models" / "judges")
    clip = load_clip(root / "models" / "clip" / "second").eval()
    values: dict[str, list[Values]] = {}
    for item in tqdm(items, desc="judges", unit="item"):
        views = stack_views([Image.fromarray(image) for image in item.images], side)
        scene = judges.match_prompt(item.prompt)
        assert scene is not None, item.prompt
        features = extract_scene_features(views)
        hits = np.array([[label == scene for label in both] for both in judges.recognize_scenes(features)], float)
        probabilities = judges.compute_probabilities(features, scene)
        agreement = embed_images(clip, views, CANDIDATES) @ embed_prompts(tower, [item.prompt])[0]
        columns = (hits[:, 0], probabilities[:, 0], hits[:, 1], probabilities[:, 1], agreement)
        for name, column in zip(JUDGES, columns, strict=True):
            values.setdefault(name, []).append(column)
    return {name: np.stack(rows) for name, rows in values.items()}


def summarize_by_count(items: Sequence[Item], selector: str, judged: Mapping[str, Values]) -> dict[str, Any]:
    """Return judge -> N -> its mean of the best of N, and the lift over a single one."""
    scores = np.stack([item.scores[selector] for item in items])
    return {
        name: {
            count: {
                "mean": summarize(score_best_of(scores, values, count)),
                "lift": summarize(score_best_of(scores, values, count) - score_best_of(scores, values, 1)),
            }
            for count in COUNTS
        }
        for name, values in judged.items()
    }


def measure_drops(items: Sequence[Item], drops: Sequence[DropStep], judged: Mapping[str, Values]) -> dict[str, Any]:
    """Return a schedule's share of the work, and its change (below 0: loss) against the best of all."""
    final = np.stack([item.scores[SELECTORS[0]] for item in items])
    schedule = selection.plan_drops(drops, CANDIDATES, 1, STEPS)
    assert schedule.keys() <= set(GUESS_STEPS), f"{schedule}: note guesses after these steps"
    guesses = {step: np.stack([item.guesses[step] for item in items]) for step in schedule}
    selected, best = select_by_halving(guesses, final, schedule), final.argmax(axis=1)
    return {
        "schedule": schedule,
        "share_of_calls": selection.count_image_steps(drops, CANDIDATES, 1, STEPS) / (CANDIDATES * STEPS),
        "same_choice": float(np.mean(selected == best)),
        "change": {
            name: summarize(select_scores(values, selected) - select_scores(values, best))
            for name, values in judged.items()
        },
        "lift": {
            name: summarize(select_scores(values, selected) - values.mean(axis=1)) for name, values in judged.items()
        },
    }


def measure_costs(items: Sequence[Item], pipeline: CanvasPipeline, reward: Reward) -> dict[str, Any]:
    """Count the denoiser's calls, and measure median seconds, of the best of N and of dropping early."""
    runs: dict[str, tuple[int, Sequence[DropStep]]] = {str(count): (count, ()) for count in COUNTS}
    runs["16, dropping early"] = CANDIDATES, HALVING
    costs: dict[str, Any] = {}
    for name, (count, drops) in runs.items():
        seconds = []
        for item in items[:TIMED]:
            clock = time.perf_counter()
            result = selection.select_best(
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
            seconds.append(time.perf_counter() - clock)
        costs[name] = {"denoiser_calls": result.cost.denoiser_calls, "seconds": statistics.median(seconds)}
    return costs


def summarize(values: Values) -> list[float]:
    """Return the mean over items and both ends of its interval."""
    interval = bootstrap_mean(list(values))
    return [round(value, 4) for value in (interval.mean, interval.low, interval.high)]


if __name__ == "__main__":
    main()
