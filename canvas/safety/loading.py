"""Safety models from directories and the hub, each with the reading that params give it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from canvas.hub import Snapshot, fetch_snapshot
from canvas.loading import load_with_processor, read_model_config
from canvas.safety.guard import CHECKER, Classifier, read_labels
from canvas.safety.spec import ClassifierSpec


def fetch_prompt_classifier(spec: ClassifierSpec) -> Classifier:
    """Load a text classifier of transformers with its tokenizer, in eval mode.

    Raises:
        ValueError: It cannot be fetched, is no such model in safetensors, lacks weights, or knows other labels.
    """
    snapshot = fetch_snapshot(spec.repository)
    return _load(AutoModelForSequenceClassification, AutoTokenizer, snapshot, spec, "text classification")


def fetch_image_classifier(spec: ClassifierSpec) -> Classifier:
    """Load an image classifier of transformers, or a StableDiffusionSafetyChecker, with its image processor, in eval
    mode.

    Raises:
        ValueError: As `fetch_prompt_classifier` does.
    """
    snapshot = fetch_snapshot(spec.repository)
    architectures = read_model_config(snapshot.folder).get("architectures")
    kind: Any = AutoModelForImageClassification
    if architectures == [CHECKER]:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        kind = StableDiffusionSafetyChecker
    return _load(kind, AutoImageProcessor, snapshot, spec, "image classification")


def _load(kind: Any, processor_kind: Any, snapshot: Snapshot, spec: ClassifierSpec, task: str) -> Classifier:
    (network, report), processor = load_with_processor(
        kind, processor_kind, snapshot.folder, task, dtype=torch.float32, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{spec.repository} lacks {len(missing)} weights of {type(network).__name__}, as {missing[0]}: name a "
            f"model that was trained for {task}"
        )
    _check_reading(network, spec)
    network.config.safety_labels = list(spec.labels)
    network.config.safety_threshold = float(spec.threshold)
    network.config.source = snapshot.describe()
    return Classifier(network.eval(), processor)


def _check_reading(network: PreTrainedModel, spec: ClassifierSpec) -> None:
    """Raise ValueError unless labels and threshold fit the network."""
    if type(network).__name__ == CHECKER:
        if spec.labels:
            raise ValueError(f"{spec.repository} has no labels to choose from: give [], not {list(spec.labels)}")
        return
    labels = list(read_labels(network.config))
    if not spec.labels or not set(spec.labels) <= set(labels):
        raise ValueError(f"{spec.repository} knows {', '.join(labels)}: name those to refuse, not {list(spec.labels)}")
    if not 0 < spec.threshold <= 1:
        raise ValueError(f"the threshold of {spec.repository} is {spec.threshold}: give a chance above 0, at most 1")
