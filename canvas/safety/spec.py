"""Which classifiers judge prompts and generated images: params of a stage, so this module is light to import."""

from __future__ import annotations

from dataclasses import dataclass

from canvas.ranges import Cosine


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierSpec:
    """A public classifier, and what it refuses."""

    repository: str  # directory or hub id OWNER/NAME@REVISION of a classifier of transformers
    labels: tuple[str, ...]  # its classes that are refused; [] for StableDiffusionSafetyChecker, which has none
    threshold: Cosine  # chance of them from which is refused; of StableDiffusionSafetyChecker: 0, higher refuses less


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetySpec:
    """The safety models of the generator. They are saved in it, and judge wherever it generates."""

    prompt: ClassifierSpec | None  # text classifier that judges prompts; null: none does
    image: ClassifierSpec | None  # image classifier, or StableDiffusionSafetyChecker, of generated images; null: none
