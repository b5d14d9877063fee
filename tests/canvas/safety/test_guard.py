"""Real classes of transformers and diffusers, tiny, judge prompts and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from canvas.pins.images import Pixels
from canvas.safety.guard import Classifier, SafetyGuard, UnsafeContentError
from canvas.safety.loading import fetch_image_classifier, fetch_prompt_classifier
from canvas.safety.spec import ClassifierSpec
from tests.canvas.safety_models import write_image_classifier, write_prompt_classifier, write_safety_checker

PROMPTS = ("mug, in a forest", "mug with a bomb")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompt_classifier(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_classifier(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safety_checker(tmp_path_factory.mktemp("checker"))


def build_images(count: int = 12) -> list[Pixels]:
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (count, 1, 1, 3))
    noise = generator.integers(-40, 40, (count, 16, 16, 3))
    return list(np.clip(colours + noise, 0, 255).astype(np.uint8))


def fetch_prompt(path: Path, threshold: float = 0.5, labels: tuple[str, ...] = ("unsafe",)) -> Classifier:
    return fetch_prompt_classifier(ClassifierSpec(repository=str(path), labels=labels, threshold=threshold))


def fetch_image(path: Path, threshold: float = 0.5, labels: tuple[str, ...] = ("nsfw",)) -> Classifier:
    return fetch_image_classifier(ClassifierSpec(repository=str(path), labels=labels, threshold=threshold))


def test_scores_are_those_of_transformers_own_pipelines(text_model: Path, image_model: Path) -> None:
    texts = pipeline("text-classification", model=str(text_model), top_k=None)(list(PROMPTS))
    expected = [next(row["score"] for row in rows if row["label"] == "unsafe") for rows in texts]
    assert [fetch_prompt(text_model).score_text(prompt) for prompt in PROMPTS] == pytest.approx(expected, abs=1e-5)
    images = build_images()
    rows = pipeline("image-classification", model=str(image_model))([Image.fromarray(image) for image in images])
    expected = [next(row["score"] for row in answers if row["label"] == "nsfw") for answers in rows]
    assert fetch_image(image_model).score_images(images) == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) > 3


def test_the_prompt_beyond_the_threshold_is_refused(text_model: Path) -> None:
    low, high = sorted(PROMPTS, key=fetch_prompt(text_model).score_text)
    scores = [fetch_prompt(text_model).score_text(prompt) for prompt in (low, high)]
    assert scores[1] - scores[0] > 0.02
    guard = SafetyGuard(prompt=fetch_prompt(text_model, sum(scores) / 2))
    guard.check_prompt(low)
    with pytest.raises(UnsafeContentError, match=r"the prompt is refused: the safety model .* sees unsafe") as caught:
        guard.check_prompt(high)
    assert str(caught.value).endswith("is the limit; say it in other words")
    assert "\n" not in str(caught.value)


def test_labels_that_exclude_each_other_add_up_and_others_do_not(tmp_path: Path) -> None:
    labels = ("fine", "rude", "violent")
    write_prompt_classifier(tmp_path / "one", labels)
    write_prompt_classifier(tmp_path / "many", labels, problem_type="multi_label_classification")
    prompt = PROMPTS[1]

    def score(folder: str, *chosen: str) -> float:
        return fetch_prompt(tmp_path / folder, labels=chosen).score_text(prompt)

    assert score("one", "rude", "violent") == pytest.approx(1 - score("one", "fine"), abs=1e-5)
    assert score("many", "rude", "violent") == max(score("many", "rude"), score("many", "violent"))


def test_a_prompt_that_cannot_be_read_whole_is_refused(text_model: Path) -> None:
    guard = SafetyGuard(prompt=fetch_prompt(text_model, 1.0))
    guard.check_prompt("mug " * 28)
    with pytest.raises(UnsafeContentError, match=r"has 31 tokens, of which the safety model .* reads 30: shorten it"):
        guard.check_prompt("mug " * 29)


def test_the_image_beyond_the_threshold_is_named(image_model: Path) -> None:
    images = build_images()
    scores = fetch_image(image_model).score_images(images)
    worst = int(np.argmax(scores))
    names = [f"image {number}" for number in range(len(images))]
    SafetyGuard(image=fetch_image(image_model, max(scores) + 1e-4)).check_images(images, names)
    with pytest.raises(UnsafeContentError, match=f"^image {worst} is refused: .* sees nsfw, "):
        SafetyGuard(image=fetch_image(image_model, max(scores) - 1e-4)).check_images(images, names)


@pytest.mark.parametrize(("resized", "width"), [(16, 64), (24, 24)])
def test_the_edges_of_an_image_are_judged_although_the_processor_crops(
    tmp_path: Path, resized: int, width: int
) -> None:
    checker = write_safety_checker(tmp_path, resized)
    plain = np.full((resized, width, 3), 128, np.uint8)
    edged = plain.copy()
    edged[:, :3] = (255, 0, 0)
    judge = fetch_image(checker, 0.0, ())
    processor = AutoImageProcessor.from_pretrained(checker)
    cropped = [
        processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"] for image in (plain, edged)
    ]
    torch.testing.assert_close(*cropped)
    one, other = judge.score_images([plain, edged])
    assert abs(one - other) > 1e-3


def test_stable_diffusions_checker_decides_as_it_does_itself(checker: Path) -> None:
    judge, images = fetch_image(checker, 0.0, ()), build_images(24)
    processor = AutoImageProcessor.from_pretrained(checker)
    values = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    _, expected = judge.network(clip_input=values, images=[image.copy() for image in images])
    scores = judge.score_images(images)
    decided = [score > 0 for score, own in zip(scores, expected, strict=True)]
    clear = [place for place, score in enumerate(scores) if abs(score) > 1e-3]  # it rounds
    assert [decided[place] for place in clear] == [bool(expected[place]) for place in clear]
    assert 0 < sum(decided) < len(decided)
    with pytest.raises(UnsafeContentError, match="sees an unsafe concept"):
        SafetyGuard(image=judge).check_images(images, ["an image"] * 24)
    SafetyGuard(image=fetch_image(checker, 1.0, ())).check_images(images, ["an image"] * 24)


def test_images_are_judged_in_the_precision_of_the_pipeline(image_model: Path) -> None:
    judge, images = fetch_image(image_model), build_images(3)
    expected = judge.score_images(images)
    judge.network.to(torch.bfloat16)
    assert judge.score_images(images) == pytest.approx(expected, abs=0.05)


def test_a_score_that_is_no_number_refuses(image_model: Path) -> None:
    judge = fetch_image(image_model, 1.0)
    torch.nn.init.constant_(judge.network.classifier.bias, float("nan"))
    with pytest.raises(UnsafeContentError, match="gave nan, no number"):
        SafetyGuard(image=judge).check_images(build_images(1), ["an image"])


def test_an_image_says_who_judged_it(text_model: Path, image_model: Path) -> None:
    guard = SafetyGuard(prompt=fetch_prompt(text_model, 0.9), image=fetch_image(image_model))
    image = {"judged": "image", "repository": str(image_model), "commit": "", "labels": ["nsfw"], "threshold": 0.5}
    assert guard.describe(None) == [image]
    prompt = {"judged": "prompt", "repository": str(text_model), "commit": "", "labels": ["unsafe"], "threshold": 0.9}
    assert guard.describe("mug") == [prompt, image]
    assert SafetyGuard().describe("mug") == []
    SafetyGuard().check_prompt("anything")
    SafetyGuard().check_images(build_images(1), ["an image"])


def test_the_tokenizer_is_the_repositorys(text_model: Path) -> None:
    tokens = AutoTokenizer.from_pretrained(text_model)("mug with a bomb")["input_ids"]
    assert tokens == [2, 5, 9, 7, 10, 3]
