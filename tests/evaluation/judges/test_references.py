from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import EdgeSpec, UNetSpec
from evaluation.judges.references import compute_files_digest, load_reference_segmenter, load_reference_text_image
from evaluation.judges.spec import ReferenceSegmenterSpec, ReferenceSpec
from tests.canvas.public_models import write_clip
from tests.canvas.reward.test_model import build_tiny_reward

PROMPTS = ["red mug, in a forest", "red mug, in a lobby", "blue lamp"]


def write_segmenter(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(folder)
    return folder


def pin(folder: Path, digest: str | None = None) -> ReferenceSegmenterSpec:
    digest = compute_files_digest(folder) if digest is None else digest
    return ReferenceSegmenterSpec(repository=str(folder), digest=digest, background=())


def test_a_pinned_segmenter_is_loaded(tmp_path: Path) -> None:
    segmenter = load_reference_segmenter(pin(write_segmenter(tmp_path / "segmenter")))
    (alpha,) = segmenter.predict_alphas([Image.new("RGB", (40, 30))], EdgeSpec(radius=0, epsilon=0.001))
    assert alpha.shape == (30, 40)


def test_other_files_are_refused_and_the_right_digest_is_named(tmp_path: Path) -> None:
    folder = write_segmenter(tmp_path / "segmenter")
    digest = compute_files_digest(folder)
    for wrong in ("", "0" * 64):
        with pytest.raises(ValueError, match=rf"evaluate.references.segmenter.digest is '{wrong}', but .* {digest}"):
            load_reference_segmenter(pin(folder, wrong))
    (folder / "README.md").write_text("# Nothing that counts")
    assert compute_files_digest(folder) == digest
    assert compute_files_digest(write_segmenter(tmp_path / "other", seed=1)) != digest
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    with pytest.raises(ValueError, match="write that one if these are the files that you trust"):
        load_reference_segmenter(pin(folder, digest))


def test_agreement_is_the_models_own_cosine(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    write_clip(folder)
    spec = ReferenceSpec(repository=str(folder), digest=compute_files_digest(folder))
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    batch, images = torch.from_numpy(pixels).permute(0, 3, 1, 2), [Image.fromarray(image) for image in pixels]
    reference = load_reference_text_image(spec)
    whole, parts = (reference.compute_agreement(batch, PROMPTS, batch_size=size).tolist() for size in (8, 2))
    assert parts == pytest.approx(whole, abs=1e-5)
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(images=images, text=PROMPTS, padding=True, truncation=True, return_tensors="pt"))
    expected = (output.logits_per_image / model.logit_scale.exp()).diagonal()
    assert whole == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a directory nor a hub id"):
        load_reference_text_image(ReferenceSpec(repository="./nowhere", digest=""))


def test_a_reward_of_the_challengers_kind_is_no_reference(tmp_path: Path) -> None:
    build_tiny_reward().save_pretrained(tmp_path / "reward")
    spec = ReferenceSpec(repository=str(tmp_path / "reward"), digest=compute_files_digest(tmp_path / "reward"))
    with pytest.raises(ValueError, match="which train_reward wrote: name a CLIP or SigLIP"):
        load_reference_text_image(spec)
