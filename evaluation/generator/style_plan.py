"""The trials of `evaluate_style`, and the memory that they take: light to import, as the stage states it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from canvas.pins.frames import FrameSpec
from evaluation.generator.spec import StyleEvaluationSpec
from evaluation.judges.features import choose_view_side

FRAMED_PRODUCT_BYTES = 4 * (3 + 1 + 1)
"""Bytes of a pixel of a product to generate images of: colours, mask, alpha (canvas.inference.product)."""

LABELLED_PRODUCT_BYTES = 3 + 1 + 3
"""Bytes of a pixel of a known product's square (canvas.styles.pins): with it, its mask, without it."""

STYLED_IMAGE_BYTES = 3 + 1 + LABELLED_PRODUCT_BYTES
"""Bytes of a pixel of a generated image's square (evaluation.generator.style_trials): the view, what is hidden of it,
and as much as of a known product for its copy with a leak: the copy, its mask, the copy with that hidden."""

REAL_PIN_BYTES = 3 + 1  # bytes of a pixel of a real pin (canvas.pins.products): its image and its mask


@dataclass(frozen=True, slots=True)
class StyleTrial:
    """The conditions of one image."""

    subject: int  # index into the plan's subjects
    style: int  # index into the plan's styles
    strength: float
    prompted: bool
    seed: int

    @property
    def image_key(self) -> tuple[object, ...]:
        """Equal for trials of the same image: without prompt and strength the style does not matter."""
        unconditional = not self.prompted and self.strength == 0
        return (self.subject, None if unconditional else self.style, self.strength, self.prompted, self.seed)


def plan_trials(
    assigned: Sequence[Sequence[int]], strengths: Sequence[float], seeds: int, headline_seeds: int, seed: int
) -> list[StyleTrial]:
    """Return trials of every subject with each of its styles, at strength 0 and `strengths`, prompted and not.

    The first strength and 0, without a prompt, have `headline_seeds` seeds.
    """
    return [
        StyleTrial(subject, style, strength, prompted, seed + number)
        for subject, styles in enumerate(assigned)
        for style in styles
        for strength in (0.0, *strengths)
        for prompted in (False, True)
        for number in range(headline_seeds if not prompted and strength in (0.0, strengths[0]) else seeds)
    ]


def estimate_trial_memory(evaluate_style: StyleEvaluationSpec, frames: FrameSpec) -> Iterator[tuple[str, int, str]]:
    """Yield what `evaluate_style` holds, images of a catalogue as large as the frames: real and known pins, products to
    generate images of, then generated images."""
    spec, side, view_side = evaluate_style, frames.side, choose_view_side(frames.side)
    assigned = [range(spec.styles)] * spec.products
    trials = plan_trials(assigned, spec.strengths, spec.seeds, spec.headline_seeds, spec.seed)
    images = len({trial.image_key for trial in trials})
    labelled_bytes = LABELLED_PRODUCT_BYTES * (spec.learnt_pins + spec.real_pins)
    whole = 3 * images + REAL_PIN_BYTES * spec.real_pins
    of_images = f"3 x {images:,} images + {REAL_PIN_BYTES} x {spec.real_pins:,} pins"
    of_labelled = f"{LABELLED_PRODUCT_BYTES} x ({spec.learnt_pins:,} + {spec.real_pins:,})"
    yield (
        "",
        (whole + FRAMED_PRODUCT_BYTES * spec.products) * side**2 + labelled_bytes * view_side**2,
        f"({of_images} + {FRAMED_PRODUCT_BYTES} x {spec.products:,}) x {side}^2 + {of_labelled} x {view_side}^2 bytes",
    )
    yield (
        "scoring",
        whole * side**2 + (labelled_bytes + STYLED_IMAGE_BYTES * len(trials)) * view_side**2,
        f"({of_images}) x {side}^2 + ({of_labelled} + {STYLED_IMAGE_BYTES} x {len(trials):,}) x {view_side}^2 bytes",
    )
