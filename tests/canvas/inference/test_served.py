"""The generator as MLflow loads and asks it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from canvas.data.images import encode_png
from canvas.inference.served import INPUTS, OPTIONS, OUTPUTS
from lifecycle.packaging import write_pyfunc
from lifecycle.stage import Served
from tests.canvas.inference.conftest import cutout


def test_a_stored_pipeline_is_loaded_without_pickle_and_paints_as_it_did(pipeline, tmp_path: Path):
    import mlflow.pyfunc
    import pandas as pd

    pipeline.save_pretrained(tmp_path / "canvas")
    served = Served(loader="canvas.inference.served", inputs=INPUTS, outputs=OUTPUTS, options=OPTIONS)
    write_pyfunc(tmp_path / "model", tmp_path / "canvas", served)
    assert not [file for file in (tmp_path / "model").rglob("*") if file.suffix in (".pkl", ".bin", ".pt")]

    product = cutout(40, 56)
    rows = pd.DataFrame({"product": [encode_png(product)] * 2, "prompt": ["a red lamp, forest"] * 2, "seed": [1, 2]})
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    made = loaded.predict(rows, params={"steps": 2})["image"]
    expected = pipeline(product, "a red lamp, forest", seed=1, num_candidates=2, num_inference_steps=2).images
    for png, image in zip(made, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), np.asarray(image))
