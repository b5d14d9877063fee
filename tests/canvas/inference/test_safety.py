"""Safety models guard every way to generate, and travel with the model."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.__main__ import main
from canvas.inference.assembly.stage_parts import add_safety
from canvas.inference.batch import Request, encode_requests, generate_images
from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.product import build_product
from canvas.inference.provenance import read_provenance
from canvas.inference.selection import select_best
from canvas.inference.served import INPUTS, OPTIONS, OUTPUTS
from canvas.pins.images import encode_png
from canvas.safety.guard import UnsafeContentError
from canvas.safety.spec import ClassifierSpec, SafetySpec
from lifecycle.declare.registry import Served
from lifecycle.registry.packaging import write_pyfunc
from tests.canvas.inference.conftest import cutout, sampling
from tests.canvas.reward.test_model import build_tiny_reward
from tests.canvas.safety_models import write_image_classifier, write_prompt_classifier

PROMPTS = ("mug, in a forest", "mug with a bomb")
NEVER = 1.0
"""A chance that no classifier gives: nothing is refused."""
ALWAYS = 1e-6


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifiers")
    write_prompt_classifier(folder / "text")
    write_image_classifier(folder / "image")
    return folder


def guard(
    pipeline: CanvasPipeline, classifiers: Path, *, prompt: float | None, image: float | None, label: str = "unsafe"
) -> CanvasPipeline:
    """`pipeline` with safety models of such thresholds; None: without."""
    text = {"repository": str(classifiers / "text"), "labels": (label,)}
    picture = {"repository": str(classifiers / "image"), "labels": ("nsfw",)}
    made = CanvasPipeline(**pipeline.components, max_aspect=pipeline.config["max_aspect"])
    made.set_progress_bar_config(disable=True)
    spec = SafetySpec(
        prompt=None if prompt is None else ClassifierSpec(**text, threshold=prompt),
        image=None if image is None else ClassifierSpec(**picture, threshold=image),
    )
    add_safety(made, spec)
    return made


@pytest.fixture(scope="module")
def guarded(pipeline: CanvasPipeline, classifiers: Path) -> tuple[CanvasPipeline, str, str]:
    """A pipeline that refuses one of PROMPTS and no image; the prompt that passes, and the one that does not."""
    judge = guard(pipeline, classifiers, prompt=NEVER, image=None).safety.prompt
    assert judge is not None
    low, high = sorted(PROMPTS, key=judge.score_text)
    middle = (judge.score_text(low) + judge.score_text(high)) / 2
    return guard(pipeline, classifiers, prompt=middle, image=NEVER), low, high


@pytest.fixture(scope="module")
def refusing(pipeline: CanvasPipeline, classifiers: Path) -> CanvasPipeline:
    """A pipeline that refuses every image and no prompt."""
    return guard(pipeline, classifiers, prompt=NEVER, image=ALWAYS)


def test_what_passes_is_generated_as_without_safety_models(
    pipeline: CanvasPipeline, guarded: tuple[CanvasPipeline, str, str]
) -> None:
    made, passing, _ = guarded
    options = {"seed": 3, "num_inference_steps": 1}
    expected = pipeline(cutout(40, 56), passing, **options).images[0]
    np.testing.assert_array_equal(np.asarray(made(cutout(40, 56), passing, **options).images[0]), np.asarray(expected))


def test_a_prompt_is_refused_before_anything_is_generated(guarded: tuple[CanvasPipeline, str, str]) -> None:
    made, passing, refused = guarded
    steps: list[int] = []

    def count(*arguments: object) -> dict[str, object]:
        steps.append(1)
        return {}

    with pytest.raises(UnsafeContentError, match="the prompt is refused"):
        made(cutout(40, 56), refused, seed=1, callback_on_step_end=count)
    assert not steps
    made(cutout(40, 56), passing, negative_prompt=refused, seed=1, num_inference_steps=1, callback_on_step_end=count)
    assert steps  # what is not to be shown may be named


@pytest.mark.parametrize("disguise", ["mug with a &#98;omb", "mug with a \uff42omb"])
def test_a_prompt_is_judged_as_the_text_towers_read_it(
    pipeline: CanvasPipeline, classifiers: Path, disguise: str
) -> None:
    """HTML entities and wide letters are plain letters to them, and unknown words to a classifier."""
    scores = {}
    for label in ("safe", "unsafe"):  # whichever the disguise hides from this random classifier
        judge = guard(pipeline, classifiers, prompt=NEVER, image=None, label=label).safety.prompt
        assert judge is not None
        scores[label] = [judge.score_text(text) for text in (PROMPTS[1], disguise)]
    label = max(scores, key=lambda name: scores[name][0] - scores[name][1])
    limit = sum(scores[label]) / 2
    made = guard(pipeline, classifiers, prompt=limit, image=None, label=label)
    assert made.safety.prompt is not None
    assert made.safety.prompt.score_text(disguise) < limit - 0.01
    with pytest.raises(UnsafeContentError, match="the prompt is refused"):
        made(cutout(40, 56), disguise, seed=1)


def test_every_form_refuses_an_image_and_names_it(refusing: CanvasPipeline) -> None:
    product = cutout(40, 56)
    with pytest.raises(UnsafeContentError, match=r"^the image of seed 7 is refused: .*; try another seed or prompt$"):
        refusing(product, "mug", seed=7, num_candidates=2, num_inference_steps=1)
    with pytest.raises(UnsafeContentError, match=r"^the image of candidate 0 is refused"):
        refusing(product, "mug", num_inference_steps=1)
    choice = {"candidates": 2, "top": 1, "seed": 7, "num_inference_steps": 1}
    with pytest.raises(UnsafeContentError, match=r"^the image of seed 7 is refused"):
        select_best(refusing, build_tiny_reward(), product, "mug", **choice)
    requests = encode_requests(refusing, [Request(product=build_product(product), prompt="mug", seed=7)])
    with pytest.raises(UnsafeContentError, match=r"^the image of seed 7 for the prompt 'mug' is refused"):
        generate_images(refusing, requests, sampling(steps=1), name="images")


def test_batches_refuse_a_prompt(guarded: tuple[CanvasPipeline, str, str]) -> None:
    made, passing, refused = guarded
    product = build_product(cutout(40, 56))
    requests = [Request(product=product, prompt=prompt, seed=1) for prompt in (passing, refused)]
    with pytest.raises(UnsafeContentError, match="the prompt is refused"):
        encode_requests(made, requests)
    (image,) = generate_images(made, encode_requests(made, requests[:1]), sampling(steps=1), name="images")
    assert image.shape == (40, 56, 3)


def generate(folder: Path, prompt: str) -> int:
    cutout(40, 56).save(folder / "mug.png")
    places = ["--model", str(folder / "model"), "--product", str(folder / "mug.png"), "--out", str(folder / "out")]
    return main(["generate", *places, "--prompt", prompt, "--steps", "1", "--candidates", "2", "--seed", "5"])


def test_command_line_uses_what_travels_with_the_model(
    guarded: tuple[CanvasPipeline, str, str],
    classifiers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, passing, refused = guarded
    made.save_pretrained(tmp_path / "model")
    assert not [file for file in (tmp_path / "model").rglob("*") if file.suffix in (".bin", ".pkl", ".pt")]
    assert "image_safety/model.safetensors" in json.loads((tmp_path / "model/checksums.json").read_text())
    assert generate(tmp_path, refused) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("canvas generate: the prompt is refused: the safety model ")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()

    assert generate(tmp_path, passing) == 0
    stated = read_provenance((tmp_path / "out/mug-5.png").read_bytes())
    assert stated is not None
    text, image = stated["safety"]
    assert text["judged"] == "prompt"
    assert (text["repository"], text["commit"], text["labels"]) == (str(classifiers / "text"), "", ["unsafe"])
    assert image == {
        "judged": "image",
        "repository": str(classifiers / "image"),
        "commit": "",
        "labels": ["nsfw"],
        "threshold": NEVER,
    }


def test_command_line_writes_no_image_that_is_refused(
    refusing: CanvasPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing.save_pretrained(tmp_path / "model")
    assert generate(tmp_path, "mug") == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("canvas generate: the image of seed 5 is refused: the safety model ")
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_served_model_refuses_and_states_its_judges(guarded: tuple[CanvasPipeline, str, str], tmp_path: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd

    made, passing, refused = guarded
    made.save_pretrained(tmp_path / "canvas")
    served = Served(loader="canvas.inference.served", inputs=INPUTS, outputs=OUTPUTS, options=OPTIONS)
    write_pyfunc(tmp_path / "model", tmp_path / "canvas", served)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    row = {"product": encode_png(cutout(40, 56)), "seed": 1}
    png = loaded.predict(pd.DataFrame([row | {"prompt": passing}]), params={"steps": 1})["image"][0]
    assert Image.open(io.BytesIO(png)).size == (56, 40)
    stated = read_provenance(png)
    assert stated is not None
    assert [judge["judged"] for judge in stated["safety"]] == ["prompt", "image"]
    with pytest.raises(UnsafeContentError, match="the prompt is refused"):
        loaded.predict(pd.DataFrame([row | {"prompt": passing}, row | {"prompt": refused}]), params={"steps": 1})


def test_a_model_of_before_has_no_safety_models_and_says_so(
    pipeline: CanvasPipeline, classifiers: Path, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    names = [name for name in index if "_safety" in name]
    assert len(names) == 4
    (tmp_path / "model/model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k not in names}))
    assert generate(tmp_path, "mug") == 0
    stated = read_provenance((tmp_path / "out/mug-5.png").read_bytes())
    assert stated is not None
    assert stated["safety"] == []


def test_a_safety_model_whose_weights_are_gone_stops_the_model(
    refusing: CanvasPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing.save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model/image_safety")
    assert generate(tmp_path, "mug") == 1
    assert "image_safety/model.safetensors is missing" in capsys.readouterr().err


def test_sources_of_the_model_name_its_safety_models(refusing: CanvasPipeline, classifiers: Path) -> None:
    assert refusing.config["sources"]["image_safety"] == {
        "repository": str(classifiers / "image"),
        "commit": "",
        "licence": "not stated",
    }
    assert set(refusing.config["sources"]) == {"prompt_safety", "image_safety"}
