"""What prompts and generated images must pass. A score that is no number refuses, and so does what cannot be judged
whole.

Shapes: B images or texts, L classes of a classifier, C concepts of a StableDiffusionSafetyChecker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from canvas.pins.images import Pixels

CHECKER = "StableDiffusionSafetyChecker"
"""Class of diffusers: a CLIP that compares images with concepts, each with a limit of its own (Rando et al. 2022)."""
CHECKER_CARE = 0.01
"""Added to the concepts' cosines where one of its special concepts is seen, as its authors do."""
SPARE_POSITIONS = 2
"""RoBERTa's kind counts positions from its padding's id on."""
AT_ONCE = 8
"""Images that go through the network together."""


class UnsafeContentError(ValueError):
    """A safety model refused a prompt or an image; the message says which model, and why."""


def read_labels(config: Any) -> dict[str, int]:
    """Return a classifier's labels -> their places in its logits, in order."""
    return {str(label): int(place) for place, label in sorted(config.id2label.items(), key=lambda item: int(item[0]))}


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network and its tokenizer or image processor; the network's config says what is refused
    (canvas.safety.loading)."""

    network: PreTrainedModel
    processor: Any

    @property
    def name(self) -> str:
        """Repository, and commit if it has one."""
        source = self.network.config.source
        return "@".join(filter(None, (source["repository"], source["commit"])))

    @property
    def threshold(self) -> float:
        """The score from which is refused."""
        return float(self.network.config.safety_threshold)

    @property
    def labels(self) -> list[str]:
        """The classes that are refused; a StableDiffusionSafetyChecker has none."""
        return list(self.network.config.safety_labels)

    def describe(self) -> dict[str, Any]:
        """Return what an image says of who judged it."""
        source = self.network.config.source
        model = {"repository": source["repository"], "commit": source["commit"]}
        return model | {"labels": self.labels, "threshold": self.threshold}

    @torch.inference_mode()
    def score_text(self, text: str) -> float:
        """Return the chance of the labels in a text.

        Raises:
            UnsafeContentError: The text is longer than what the network reads.
        """
        tokens = self.processor(text, return_tensors="pt")
        length, limit = tokens["input_ids"].shape[1], self._get_text_limit()
        if length > limit:
            raise UnsafeContentError(
                f"the prompt has {length} tokens, of which the safety model {self.name} reads {limit}: shorten it"
            )
        return float(self._read_logits(self.network(**tokens.to(self.network.device)).logits)[0])

    @torch.inference_mode()
    def score_images(self, images: Sequence[Pixels]) -> list[float]:
        """Return, of each image [h, w, 3], the chance of the labels; of a StableDiffusionSafetyChecker by how much the
        worst concept's cosine exceeds its limit."""
        scores: list[float] = []
        for first in range(0, len(images), AT_ONCE):
            squares = [self._make_square(pixels) for pixels in images[first : first + AT_ONCE]]
            disabled = {name: False for name in ("do_resize", "do_center_crop") if getattr(self.processor, name, False)}
            inputs = self.processor(images=squares, return_tensors="pt", **disabled)["pixel_values"]
            inputs = inputs.to(self.network.device, self.network.dtype)
            if type(self.network).__name__ == CHECKER:
                part = self._exceed_concepts(inputs)
            else:
                part = self._read_logits(self.network(inputs).logits)
            scores += part.tolist()
        return scores

    def _get_text_limit(self) -> int:
        limits = [self.processor.model_max_length]
        if positions := getattr(self.network.config, "max_position_embeddings", None):
            limits.append(positions - SPARE_POSITIONS)
        return int(min(limits))

    def _make_square(self, pixels: Pixels) -> Image.Image:
        """Return the whole image as the square that the network reads, where a processor may crop one out of more."""
        is_cropped = getattr(self.processor, "do_center_crop", False)
        size = self.processor.crop_size if is_cropped else self.processor.size
        sizes = size.values() if isinstance(size, Mapping) else (size.height, size.width, size.shortest_edge)
        side = max(filter(None, sizes))
        return Image.fromarray(np.asarray(pixels)).resize((side, side), Image.Resampling.BICUBIC)

    def _read_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the chance (B,) of the refused classes from (B, L): that they exclude each other, or not."""
        config = self.network.config
        label_places = read_labels(config)
        places = [label_places[label] for label in self.labels]
        if logits.shape[1] == 1 or config.problem_type == "multi_label_classification":
            return logits.float().sigmoid()[:, places].amax(dim=1)
        return logits.float().softmax(dim=1)[:, places].sum(dim=1)

    def _exceed_concepts(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return by how much the worst concept's cosine exceeds its limit, (B,)."""
        network: Any = self.network
        embeddings = network.visual_projection(network.vision_model(inputs)[1])

        def exceed(concepts: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:  # (B, C)
            units = (torch.nn.functional.normalize(part.float()) for part in (embeddings, concepts))
            return torch.matmul(next(units), next(units).T) - limits.float()

        care = (exceed(network.special_care_embeds, network.special_care_embeds_weights) > 0).any(dim=1)
        worst = exceed(network.concept_embeds, network.concept_embeds_weights).amax(dim=1)
        return worst + CHECKER_CARE * care


@dataclass(frozen=True, slots=True)
class SafetyGuard:
    """The safety models of a generator; without any, everything passes."""

    prompt: Classifier | None = None
    image: Classifier | None = None

    def check_prompt(self, prompt: str) -> None:
        """Raise UnsafeContentError for a prompt that is refused."""
        if self.prompt is not None:
            self._check(self.prompt, self.prompt.score_text(prompt), "the prompt", "say it in other words")

    def check_images(self, images: Sequence[Pixels], names: Sequence[str]) -> None:
        """Raise UnsafeContentError for the first of `images` [h, w, 3] that is refused; `names` say which it is."""
        if self.image is not None:
            for name, score in zip(names, self.image.score_images(images), strict=True):
                self._check(self.image, score, name, "try another seed or prompt")

    def describe(self, prompt: str | None) -> list[dict[str, Any]]:
        """Return which models judged an image of `prompt`; a prompt that is None was not judged."""
        judges = {"prompt": self.prompt if prompt is not None else None, "image": self.image}
        return [{"judged": name, **judge.describe()} for name, judge in judges.items() if judge is not None]

    @staticmethod
    def _check(classifier: Classifier, score: float, name: str, fix: str) -> None:
        if not math.isfinite(score):
            raise UnsafeContentError(f"{name} is refused: the safety model {classifier.name} gave {score}, no number")
        is_checker = not classifier.labels
        if score > classifier.threshold or (score == classifier.threshold and not is_checker):
            what = "an unsafe concept" if is_checker else " or ".join(classifier.labels)
            raise UnsafeContentError(
                f"{name} is refused: the safety model {classifier.name} sees {what}, {score:.3f} where "
                f"{classifier.threshold:g} is the limit; {fix}"
            )
