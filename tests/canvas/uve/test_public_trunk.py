"""Public embeddings as they are: tiny random models of timm's and transformers' own classes, saved by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

from canvas.hub import read_sources
from canvas.uve.model import UveModel, build_uve, compute_embeddings, load_uve, pack_codes, record_uve_source
from canvas.uve.spec import UveSpec
from tests.canvas.public_models import MEAN, SIDE, STD, write_clip, write_dinov2, write_siglip, write_timm

DINOV2, SIGLIP = "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"


@dataclass(frozen=True)
class Public:
    """A repository, what its library makes of normalised images, and how images are prepared."""

    trunk: str
    size: int
    width: int
    embed: Callable[[torch.Tensor], torch.Tensor]
    mean: list[float]
    std: list[float]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("public")


@pytest.fixture(scope="module")
def public(root: Path) -> dict[str, Public]:
    dino = write_timm(root / "timm-dinov2", DINOV2, img_size=28, init_values=1.0)
    timm_siglip = write_timm(root / "timm-siglip", SIGLIP, img_size=32)
    clip, siglip, dinov2 = write_clip(root / "clip"), write_siglip(root / "siglip"), write_dinov2(root / "dinov2")
    half = [0.5] * 3
    return {
        "timm-dinov2": Public(DINOV2, 28, 32, dino, MEAN, STD),
        "timm-siglip": Public(SIGLIP, 32, 32, timm_siglip, MEAN, STD),
        "clip": Public("transformers", SIDE, 24, lambda x: clip.get_image_features(x).pooler_output, MEAN, STD),
        "siglip": Public("transformers", SIDE, 32, lambda x: siglip.get_image_features(x).pooler_output, half, half),
        "dinov2": Public("transformers", SIDE, 32, lambda x: dinov2(x).pooler_output, MEAN, STD),
    }


KINDS = ["timm-dinov2", "timm-siglip", "clip", "siglip", "dinov2"]


def spec(folder: Path, trunk: str, **changes: Any) -> UveSpec:
    values = {"trunk_args": {}, "image_size": None, "embed_dim": None} | changes
    return UveSpec(trunk=trunk, init_from=str(folder), **values)


def draw_images(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
def test_embedding_is_what_the_library_pools(public: dict[str, Public], root: Path, kind: str) -> None:
    own = public[kind]
    model = build_uve(spec(root / kind, own.trunk), trains=False).eval()
    assert (model.config["image_size"], model.width, model.config["embed_dim"]) == (own.size, own.width, None)
    images = draw_images(3, own.size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
    with torch.no_grad():
        expected = F.normalize(own.embed(((images + 1) / 2 - mean) / std), dim=1)
    embeddings = compute_embeddings(model, images)
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3
    assert pack_codes(embeddings.numpy()).shape == (3, own.width // 8)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_it_stands_alone(public: dict[str, Public], root: Path, tmp_path: Path, kind: str) -> None:
    own = public[kind]
    model = build_uve(spec(root / kind, own.trunk), trains=False).eval()
    model.save_pretrained(tmp_path / "uve")
    images = draw_images(2, 48)
    for again in (
        load_uve(tmp_path / "uve"),
        build_uve(spec(tmp_path / "uve", own.trunk, embed_dim=own.width), trains=False).eval(),
    ):
        torch.testing.assert_close(compute_embeddings(again, images), compute_embeddings(model, images))


def test_width_that_is_named_must_be_the_trunks(public: dict[str, Public], root: Path) -> None:
    assert build_uve(spec(root / "clip", "transformers", embed_dim=24), trains=False).width == 24
    with pytest.raises(ValueError, match=r"embed_dim is 16, but nothing trains .* gives 24 numbers: set it to null"):
        build_uve(spec(root / "clip", "transformers", embed_dim=16), trains=False)


def test_training_adds_a_projection_to_public_weights(public: dict[str, Public], root: Path) -> None:
    for kind in ("timm-dinov2", "siglip"):
        as_it_is = build_uve(spec(root / kind, public[kind].trunk), trains=False)
        model = build_uve(spec(root / kind, public[kind].trunk, embed_dim=16))
        assert compute_embeddings(model.eval(), draw_images(2, 32)).shape == (2, 16)
        torch.testing.assert_close(model.network.state_dict(), as_it_is.network.state_dict(), rtol=0, atol=0)


def test_another_size_is_one_that_the_library_resamples(public: dict[str, Public], root: Path, tmp_path: Path) -> None:
    for kind in ("timm-dinov2", "dinov2"):
        model = build_uve(spec(root / kind, public[kind].trunk, image_size=56), trains=False).eval()
        assert compute_embeddings(model, draw_images(1, 56)).shape == (1, 32)
        model.save_pretrained(tmp_path / kind)
        assert load_uve(tmp_path / kind).config["image_size"] == 56
    with pytest.raises(ValueError, match=r"transformers cannot be built with \{\} for 64 pixels"):
        build_uve(spec(root / "clip", "transformers", image_size=64), trains=False)


def test_image_half_alone_will_do(public: dict[str, Public], root: Path, tmp_path: Path) -> None:
    CLIPVisionModelWithProjection.from_pretrained(root / "clip").save_pretrained(tmp_path / "tower")
    (tmp_path / "tower" / "preprocessor_config.json").write_bytes(
        (root / "clip" / "preprocessor_config.json").read_bytes()
    )
    models = [build_uve(spec(at, "transformers"), trains=False) for at in (root / "clip", tmp_path / "tower")]
    images = draw_images(2, SIDE)
    first, second = (compute_embeddings(model.eval(), images) for model in models)
    torch.testing.assert_close(first, second)


def test_weights_that_lack_are_no_random_ones(public: dict[str, Public], root: Path, tmp_path: Path) -> None:
    CLIPVisionModel.from_pretrained(root / "clip").save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").write_bytes(
        (root / "clip" / "preprocessor_config.json").read_bytes()
    )
    with pytest.raises(ValueError, match=r"lacks 1 weights, as visual_projection\.weight"):
        build_uve(spec(tmp_path / "bare", "transformers"), trains=False)

    write_timm(tmp_path / "timm", DINOV2, img_size=28)
    weights = load_file(tmp_path / "timm" / "model.safetensors")
    del weights["norm.weight"]
    save_file(weights, tmp_path / "timm" / "model.safetensors")
    with pytest.raises(ValueError, match=r"cannot be loaded with \{\}: .*"):
        build_uve(spec(tmp_path / "timm", DINOV2), trains=False)
    (tmp_path / "timm" / "model.safetensors").rename(tmp_path / "timm" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        build_uve(spec(tmp_path / "timm", DINOV2), trains=False)


def test_trunk_and_repository_must_agree(public: dict[str, Public], root: Path, tmp_path: Path) -> None:
    for folder, trunk, args, message in (
        (root / "clip", "resnet10t", {}, "holds transformers, not resnet10t: set uve.trunk to transformers"),
        (root / "timm-dinov2", "transformers", {}, f"holds {DINOV2}, not transformers: set uve.trunk to {DINOV2}"),
        (root / "clip", "transformers", {"depth": 1}, "uve.trunk_args are {'depth': 1}: set them to {}"),
        (tmp_path, "transformers", {}, "holds neither an embedding that train_uve wrote nor a model of timm"),
    ):
        with pytest.raises(ValueError, match=message):
            build_uve(spec(folder, trunk, trunk_args=args), trains=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is of type bert, which is not known: use one of clip, siglip"):
        build_uve(spec(tmp_path, "transformers"), trains=False)


def test_weights_in_a_package_are_an_embedding_as_they_are() -> None:
    values: dict[str, Any] = {"trunk_args": {"layers": [1, 2]}, "image_size": 32, "init_from": "timm"}
    model = build_uve(UveSpec(trunk="open_nsfw", embed_dim=None, **values), trains=False)
    assert isinstance(model, UveModel)
    assert model.width == 2 * (128 + 256)
    assert [name for name, _ in model.named_parameters() if "projection" in name] == []


def test_weights_that_timm_downloads_name_their_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded here: the cache is laid out as huggingface_hub does."""
    cached = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    commit = "c" * 40
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "model.safetensors").write_bytes(b"weights")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    values: dict[str, Any] = {"trunk_args": {}, "image_size": 64, "embed_dim": 16, "init_from": "timm"}
    record_uve_source(UveSpec(trunk="resnet10t", **values), tmp_path)
    source = {"repository": "timm/resnet10t.c3_in1k", "commit": commit, "licence": "apache-2.0"}
    assert read_sources(tmp_path) == {"": source}
    for trunk, init_from in (("open_nsfw", "timm"), ("resnet10t", None)):  # a package's weights, and random ones
        (tmp_path / trunk).mkdir()
        record_uve_source(UveSpec(trunk=trunk, **values | {"init_from": init_from}), tmp_path / trunk)
        assert read_sources(tmp_path / trunk) == {}
