"""What is no safety model is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertModel

from canvas.safety.loading import fetch_image_classifier, fetch_prompt_classifier
from canvas.safety.spec import ClassifierSpec
from tests.canvas.safety_models import write_image_classifier, write_prompt_classifier, write_safety_checker


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_prompt_classifier(folder / "text")
    write_image_classifier(folder / "image")
    write_safety_checker(folder / "checker")
    headless = folder / "headless"  # as a model that was only pretrained
    write_prompt_classifier(headless)
    BertModel.from_pretrained(folder / "text", add_pooling_layer=True).save_pretrained(headless)
    return folder


@pytest.mark.parametrize(
    ("folder", "labels", "threshold", "message"),
    [
        ("text", ("toxic",), 0.5, r"knows safe, unsafe: name those to refuse, not \['toxic'\]"),
        ("text", (), 0.5, r"name those to refuse, not \[\]"),
        ("text", ("unsafe",), 0.0, "is 0.0: give a chance above 0, at most 1"),
        ("text", ("unsafe",), -0.5, "give a chance above 0"),
        ("headless", ("LABEL_1",), 0.5, "lacks 2 weights of BertForSequenceClassification, as classifier.bias"),
        ("image", ("nsfw",), 0.5, "is no text classification model of transformers"),
        ("nowhere", ("unsafe",), 0.5, "neither a directory nor a hub id"),
    ],
)
def test_wrong_text_models(models: Path, folder: str, labels: tuple[str, ...], threshold: float, message: str) -> None:
    spec = ClassifierSpec(repository=str(models / folder), labels=labels, threshold=threshold)
    with pytest.raises(ValueError, match=message) as caught:
        fetch_prompt_classifier(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "labels", "message"),
    [
        ("checker", ("nsfw",), r"has no labels to choose from: give \[\], not \['nsfw'\]"),
        ("image", ("unsafe",), "knows normal, nsfw"),
        ("text", ("unsafe",), "is no image classification model of transformers"),
    ],
)
def test_wrong_image_models(models: Path, folder: str, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fetch_image_classifier(ClassifierSpec(repository=str(models / folder), labels=labels, threshold=0.5))


def test_weights_come_as_safetensors_alone(models: Path, tmp_path: Path) -> None:
    write_prompt_classifier(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is no text classification model of transformers in safetensors"):
        fetch_prompt_classifier(ClassifierSpec(repository=str(tmp_path), labels=("unsafe",), threshold=0.5))


def test_code_of_a_repository_does_not_run(models: Path, tmp_path: Path) -> None:
    write_prompt_classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForSequenceClassification": "evil.Evil"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    with pytest.raises(ValueError, match="is no text classification model"):
        fetch_prompt_classifier(ClassifierSpec(repository=str(tmp_path), labels=("unsafe",), threshold=0.5))
    assert not (tmp_path / "ran").exists()
