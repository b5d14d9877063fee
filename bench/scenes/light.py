"""Mode hard against mode soft: certificates, and a judge of harmony."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.scenes.subjects import summarize
from canvas.layout.spec import build_layout
from canvas.light.training import LitPin, iterate_lit_pins
from canvas.pins import tables
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import Pixels
from evaluation.judges.harmony import HarmonyJudge, extract_harmony_features
from evaluation.measures.certificates import find_certificate_fault
from evaluation.measures.distances import Features
from evaluation.scenes.subjects import Subjects, cut_out

TRAINING_PINS = 400


def measure_light(subjects: Subjects, root: Path, count: int) -> dict[str, Any]:
    """Generate each product of the full run below `root` twice with one seed, and compare."""
    if subjects.pipeline.light is None:
        return {"skipped": "the model has no light network"}
    train, held_out = tables.read_train_and_held_out(root / "artifacts" / "pins", root / "artifacts" / "kept")
    judge = HarmonyJudge.fit(*_extract_pairs(_read_lit(root, select_evenly(sorted(train), TRAINING_PINS))))
    lit_pins = _read_lit(root, select_evenly(sorted(held_out), TRAINING_PINS // 2))
    accuracy = (judge.compare(*_extract_pairs(lit_pins)) > 0.5).astype(float).tolist()
    hard, soft, boxes, passed = [], [], [], []
    for number, pin in enumerate(tqdm(lit_pins[:count], desc="light", unit="pin")):
        alpha = pin.alpha / pin.alpha.max()
        product = Image.fromarray(pin.unlit)
        product.putalpha(Image.fromarray(np.rint(alpha * 255).astype(np.uint8)))
        prompt = f"product, {subjects.get_background(number)}"
        settings: dict[str, Any] = {"seed": 1000 + number}
        hard.append(np.asarray(subjects.pipeline(product, prompt, **settings).images[0]))
        output = subjects.pipeline(product, prompt, mode="soft", **settings)
        soft.append(np.asarray(output.images[0]))
        boxes.append(pin.box)
        passed.append(_verify([product], output))
        others = [cut_out(pin) for pin in subjects.pins[2 * number : 2 * number + 2]]
        if number % 4 == 0 and len(others) == 2:
            layout = build_layout("288x192", layout="row", scale=0.8)
            output = subjects.pipeline(others, prompt, mode="soft", layout=layout, **settings)
            passed.append(_verify(others, output))
    preferred = judge.compare(*(extract_harmony_features(images, boxes) for images in (soft, hard)))
    return {
        "pins": len(hard),
        "certificates": len(passed),
        "certificates_passed": sum(passed),
        "judge_accuracy": summarize(accuracy),
        "soft_preferred": summarize((preferred > 0.5).astype(float).tolist()),
        "soft_probability": summarize(preferred.tolist()),
    }


def _verify(products: Sequence[Image.Image], output: Any) -> bool:
    """Tell whether a soft image passes from its files alone."""
    masks = [None] * len(products)
    return find_certificate_fault(output.images[0], output.certificates[0], products, masks) is None


def _read_lit(root: Path, pins: Sequence[str]) -> list[LitPin]:
    return list(iterate_lit_pins(root / "artifacts" / "pins", root / "artifacts" / "truth", pins))


def _extract_pairs(pins: Sequence[LitPin]) -> tuple[Features, Features]:
    """Return features of pins as they are, and of the same with their products unlit."""
    boxes = [pin.box for pin in pins]

    def extract(images: Sequence[Pixels]) -> Features:
        return extract_harmony_features(images, boxes)

    return extract([pin.pixels for pin in pins]), extract([pin.unlit for pin in pins])
