from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoTokenizer

from canvas.reward.model import ProductImages, RewardModel, predict_scores
from canvas.reward.preference import TextImageReward, fetch_reward
from tests.canvas.public_models import SIDE, write_clip, write_dinov2, write_siglip
from tests.canvas.reward.test_model import build_images, build_tiny_reward

PROMPTS = ["a mug, in the forest", "a lamp, on the beach", "a mug, in the forest"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("public")
    write_clip(root / "clip")
    write_clip(root / "pickscore", logit_scale=4.6, seed=1)
    write_siglip(root / "siglip")
    write_dinov2(root / "dinov2")
    return {path.name: path for path in root.iterdir()}


def load(folder: Path) -> TextImageReward:
    reward = fetch_reward(folder)
    assert isinstance(reward, TextImageReward)
    return reward


def build_products(count: int, side: int = SIDE) -> tuple[torch.Tensor, ProductImages]:
    outputs, originals, masks = build_images(count, side)
    return outputs, ProductImages(originals[:1], masks[:1])


def compute_stock_logits(reward: TextImageReward, folder: Path, images: torch.Tensor) -> Any:
    """What the model's own forward says of each image and its prompt, prepared by its own processors."""
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    pixels = AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")
    padding = {"padding": "max_length", "max_length": 16} if "siglip" in folder.name else {"padding": True}
    tokens = AutoTokenizer.from_pretrained(folder)(PROMPTS, return_tensors="pt", **padding)
    mask = None if "siglip" in folder.name else tokens["attention_mask"]
    with torch.no_grad():
        output = reward.network(input_ids=tokens["input_ids"], attention_mask=mask, **pixels)
    return output.logits_per_image.diagonal()


@pytest.mark.parametrize("kind", ["clip", "pickscore", "siglip"])
def test_score_is_the_stock_logit(folders: dict[str, Path], kind: str) -> None:
    reward = load(folders[kind])
    images, products = build_products(3)
    scores = reward.score(images, products, PROMPTS)
    expected = compute_stock_logits(reward, folders[kind], images)
    torch.testing.assert_close(scores["overall"], expected, rtol=1e-4, atol=1e-4)
    assert scores["overall"].std() > 0.01
    assert (scores["agreement"].abs() <= 1).all()
    assert reward.source == {"repository": str(folders[kind]), "commit": "", "licence": "not stated"}


def test_logit_scale_is_the_models_own(folders: dict[str, Path]) -> None:
    for kind, scale in (("clip", 2.6), ("pickscore", 4.6)):
        scores = load(folders[kind]).score(*build_products(3), PROMPTS)
        torch.testing.assert_close(scores["overall"], np.exp(scale) * scores["agreement"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_batches_change_nothing_and_images_are_seen_whole(folders: dict[str, Path], kind: str) -> None:
    reward = load(folders[kind])
    images, products = build_products(5, side=40)
    images = images[..., :24]
    prompts = [*PROMPTS, "a lamp", "a mug"]
    whole, parts = (reward.score(images, products, prompts, batch_size=size) for size in (64, 2))
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    edge = images.clone()
    edge[:, :, :6] = 0  # a crop to the middle square would lose it
    assert not torch.allclose(whole["overall"], reward.score(edge, products, prompts)["overall"], atol=1e-3)


def test_longer_prompts_count_as_far_as_they_are_read(folders: dict[str, Path]) -> None:
    reward = load(folders["clip"])
    texts = reward.embed_texts(["a mug, in the forest " + "x" * 40, "a mug, in the forest " + "x" * 50])
    assert torch.equal(texts[0], texts[1])


def test_saved_again_it_is_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    images, products = build_products(3)
    for kind in ("clip", "siglip"):
        reward = load(folders[kind])
        reward.save_pretrained(tmp_path / kind)
        again = load(tmp_path / kind).score(images, products, PROMPTS)
        torch.testing.assert_close(again, reward.score(images, products, PROMPTS), rtol=0, atol=1e-5)


def test_our_own_model_scores_as_ever(tmp_path: Path) -> None:
    build_tiny_reward().save_pretrained(tmp_path / "reward")
    reward = fetch_reward(tmp_path / "reward")
    assert isinstance(reward, RewardModel)
    images, originals, masks = build_images(3)
    for prompts in (None, PROMPTS):
        scores = reward.score(images, ProductImages(originals, masks), prompts)
        torch.testing.assert_close(scores, predict_scores(reward, images, originals, masks, prompts), rtol=0, atol=0)


def test_without_a_prompt_there_is_nothing_to_compare(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="this reward compares images with their prompt: give a prompt"):
        load(folders["clip"]).score(*build_products(1), None)


def test_what_is_no_reward_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for source, message in (
        (folders["dinov2"], "holds dinov2: a reward is what train_reward wrote, or CLIPModel or SiglipModel"),
        (tmp_path, "holds no model: a reward is"),
        ("./nowhere", "neither a directory nor a hub id"),
    ):
        with pytest.raises(ValueError, match=message):
            fetch_reward(source)


def test_missing_weights_are_no_random_ones(folders: dict[str, Path], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of CLIPModel, as visual_projection\.weight"):
        fetch_reward(tmp_path / "clip")


@pytest.mark.parametrize(("name", "message"), [("tokenizer", "no tokenizer"), ("preprocessor", "no image processor")])
def test_missing_files_are_named(tmp_path: Path, name: str, message: str) -> None:
    write_clip(tmp_path / "clip")
    files = [file for file in (tmp_path / "clip").iterdir() if file.name.startswith(name)]
    assert files
    for file in files:
        file.unlink()
    with pytest.raises(ValueError, match=message):
        fetch_reward(tmp_path / "clip")
