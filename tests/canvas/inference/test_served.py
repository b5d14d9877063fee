"""The generator as MLflow loads and asks it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canvas.inference.pipeline import CanvasPipeline
from canvas.inference.served import INPUTS, OPTIONS, OUTPUTS
from canvas.inference.style import encode_style_images
from canvas.pins.images import encode_png
from canvas.reward.spec import REWARD_FOLDER
from lifecycle.declare.registry import Served
from lifecycle.registry.packaging import write_pyfunc
from lifecycle.workspace.digest import digest
from tests.canvas.inference.conftest import cutout
from tests.canvas.inference.test_style import noise
from tests.canvas.reward.test_model import build_tiny_reward
from tests.lifecycle.registering import WHOLE, Weights, decision, open_registry, record_training, write_models

SERVED = Served(loader="canvas.inference.served", inputs=INPUTS, outputs=OUTPUTS, options=OPTIONS)


def as_served(folder: Path) -> CanvasPipeline:
    """The pipeline of `folder`, its denoiser in the precision that this machine serves in."""
    pipeline = CanvasPipeline.from_pretrained(folder)
    pipeline.set_precision("auto")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_stored_pipeline_is_loaded_without_pickle_and_generates_as_it_did(pipeline, tmp_path: Path):
    import mlflow.pyfunc
    import pandas as pd

    pipeline.save_pretrained(tmp_path / "canvas")
    build_tiny_reward().save_pretrained(tmp_path / "canvas" / REWARD_FOLDER)
    write_pyfunc(tmp_path / "model", tmp_path / "canvas", SERVED)
    assert not [file for file in (tmp_path / "model").rglob("*") if file.suffix in (".pkl", ".bin", ".pt")]
    assert digest(tmp_path / "model" / "data" / "canvas") == digest(tmp_path / "canvas")

    product = cutout(40, 56)
    rows = pd.DataFrame({"product": [encode_png(product)] * 2, "prompt": ["a red lamp, forest"] * 2, "seed": [1, 2]})
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    made = loaded.predict(rows, params={"steps": 2})["image"]
    own = as_served(tmp_path / "canvas")
    expected = own(product, "a red lamp, forest", seed=1, num_candidates=2, num_inference_steps=2).images
    for png, image in zip(made, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), np.asarray(image))


def test_styles_may_be_shown_in_a_column_of_their_own(styled_pipeline, tmp_path: Path):
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.exceptions import MlflowException

    styled_pipeline.save_pretrained(tmp_path / "canvas")
    write_pyfunc(tmp_path / "model", tmp_path / "canvas", SERVED)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    product, style_images = cutout(40, 56), [noise(1), noise(2)]
    one = {"product": encode_png(product), "seed": 1}
    styles = [encode_png(picture) for picture in style_images]
    rows = pd.DataFrame([one | {"prompt": "a red lamp", "styles": None}, one | {"prompt": None, "styles": styles}])
    made = loaded.predict(rows, params={"steps": 1, "style_strength": 0.5, "style_typical": 0.0})["image"]
    how = {"seed": 1, "num_inference_steps": 1}
    own = as_served(tmp_path / "canvas")
    expected = [
        own(product, "a red lamp", **how).images[0],
        own(product, style=encode_style_images(own, style_images, strength=0.5), **how).images[0],
    ]
    for png, image in zip(made, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), np.asarray(image))

    for bad, message in (
        ({}, "neither a prompt nor a style"),
        ({"styles": []}, "0 style images were given"),
        ({"styles": styles * 50}, "100 style images were given"),
        ({"styles": [b"words"]}, "not a JPEG, PNG or WEBP image"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded.predict(pd.DataFrame([one | bad]), params={"steps": 1})
    with pytest.raises(ValueError, match=r"nearest cluster is 7\.0: it must be from 0"):
        loaded.predict(pd.DataFrame([one | {"styles": styles}]), params={"style_typical": 7.0})
    with pytest.raises(MlflowException, match="Model is missing inputs \\['product'\\]"):
        loaded.predict(pd.DataFrame([{"seed": 1, "prompt": "a red lamp"}]))


def test_whoever_knows_the_registry_asks_the_champion(pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    models = write_models(tmp_path, "a")
    (models[Weights] / "model.safetensors").unlink()
    pipeline.save_pretrained(models[Weights])
    record_training(tmp_path, tmp_path, 1)
    (tmp_path / "evaluation.json").write_text("{}")
    registry = open_registry(tmp_path)
    passed = decision(digest(models[Weights]), None)
    versions = registry.register(
        Weights, models, served=SERVED, evidence={}, metrics=tmp_path / "evaluation.json", decision=passed
    )
    registry.promote(versions[WHOLE], passed, "it is the first")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/.mlflow/mlflow.db")
    import mlflow.pyfunc
    import pandas as pd

    rows = pd.DataFrame({"product": [encode_png(cutout(40, 56))], "prompt": ["a red lamp, forest"], "seed": [7]})
    loaded = mlflow.pyfunc.load_model(f"models:/{WHOLE}@champion")
    made = loaded.predict(rows, params={"steps": 1})["image"]
    assert Image.open(io.BytesIO(made[0])).size == (56, 40)
