"""Mode hard against mode soft: certificates, and a judge of harmony."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.scenes.subjects import Subjects, cut_out, summarize
from canvas.inference.files import save_certificate, save_lossless
from canvas.layout.spec import build_layout
from canvas.light.training import LitPin, iterate_lit_pins
from canvas.pins import tables
from canvas.pins.image_batches import select_evenly
from canvas.pins.images import Pixels
from canvas.verification import verify_file
from evaluation.judges.harmony import HarmonyJudge, extract_harmony_features
from evaluation.measures.distances import Features

TRAINING_PINS = 400


def measure_light(subjects: Subjects, count: int) -> dict[str, Any]:
    """Generate each product twice with one seed, and compare."""
    if subjects.pipeline.light is None:
        return {"skipped": "the model has no light network"}
    train, held_out = tables.read_train_and_held_out(*_get_tables(subjects)[:2])
    judge = HarmonyJudge.fit(*_extract_pairs(_read_lit(subjects, select_evenly(sorted(train), TRAINING_PINS))))
    lit_pins = _read_lit(subjects, select_evenly(sorted(held_out), TRAINING_PINS // 2))
    accuracy = (judge.compare(*_extract_pairs(lit_pins)) > 0.5).astype(float).tolist()
    hard, soft, boxes, passed = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
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
            passed.append(_verify(Path(folder), [product], output))
            others = [cut_out(pin) for pin in subjects.pins[2 * number : 2 * number + 2]]
            if number % 4 == 0 and len(others) == 2:
                layout = build_layout("288x192", layout="row", scale=0.8)
                output = subjects.pipeline(others, prompt, mode="soft", layout=layout, **settings)
                passed.append(_verify(Path(folder), others, output))
    preferred = judge.compare(*(extract_harmony_features(images, boxes) for images in (soft, hard)))
    return {
        "pins": len(hard),
        "certificates": len(passed),
        "certificates_passed": sum(passed),
        "judge_accuracy": summarize(accuracy),
        "soft_preferred": summarize((preferred > 0.5).astype(float).tolist()),
        "soft_probability": summarize(preferred.tolist()),
    }


def _verify(folder: Path, products: Sequence[Image.Image], output: Any) -> bool:
    """Tell whether a soft image passes from its files alone."""
    paths = [folder / f"product-{number}.png" for number in range(len(products))]
    for path, product in zip(paths, products, strict=True):
        product.save(path)
    save_lossless(output.images[0], folder / "soft.png", None, output.certificates[0])
    save_certificate(output.certificates[0], folder / "soft.png")
    try:
        return verify_file(folder / "soft.png", paths).mode == "soft"
    except ValueError:
        return False


def _get_tables(subjects: Subjects) -> tuple[Path, Path, Path]:
    artifacts = subjects.root / "artifacts"
    return artifacts / "pins", artifacts / "kept", artifacts / "truth"


def _read_lit(subjects: Subjects, pins: Sequence[str]) -> list[LitPin]:
    paths = _get_tables(subjects)
    return list(iterate_lit_pins(paths[0], paths[2], pins))


def _extract_pairs(pins: Sequence[LitPin]) -> tuple[Features, Features]:
    """Return features of pins as they are, and of the same with their products unlit."""
    boxes = [pin.box for pin in pins]

    def extract(images: Sequence[Pixels]) -> Features:
        return extract_harmony_features(images, boxes)

    return extract([pin.pixels for pin in pins]), extract([pin.unlit for pin in pins])
