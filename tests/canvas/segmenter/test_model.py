from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from canvas.features.imagenet import load_pretrained_trunk
from canvas.segmenter.model import (
    build_segmenter,
    load_public_segmenter,
    load_segmenter,
    load_trainable_segmenter,
    make_square_tensor,
)
from canvas.segmenter.spec import EdgeSpec, UNetSpec
from lifecycle.declare.params import read_section

SPEC = UNetSpec(image_size=64, channels=(8, 8, 8, 16))
PLAIN = EdgeSpec(radius=0, epsilon=1e-3)


def build_images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    return [Image.fromarray(noise), Image.new("RGBA", (40, 90), (200, 10, 10, 0))]


@pytest.fixture(scope="module")
def segformer(tmp_path_factory) -> Path:
    """A real checkpoint of transformers, as small as it gets, of three classes."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        id2label={0: "wall", 1: "shirt", 2: "floor"},
        label2id={"wall": 0, "shirt": 1, "floor": 2},
    )
    path = tmp_path_factory.mktemp("hub") / "segformer"
    SegformerForSemanticSegmentation(config).save_pretrained(path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


def test_the_unet_comes_back_from_its_directory(tmp_path):
    torch.manual_seed(0)
    segmenter = build_segmenter(SPEC).eval()
    segmenter.save(tmp_path / "model")
    assert sorted(file.suffix for file in (tmp_path / "model").iterdir()) == [".json", ".json", ".safetensors"]
    again = load_segmenter(tmp_path / "model")
    for before, after in zip(
        segmenter.predict_alphas(build_images(), PLAIN), again.predict_alphas(build_images(), PLAIN), strict=True
    ):
        assert (before == after).all()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(0)
        build_segmenter(SPEC).save(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_mattes_have_their_images_sizes():
    segmenter = build_segmenter(SPEC).eval()
    alphas = segmenter.predict_alphas(build_images(), EdgeSpec(radius=4, epsilon=1e-3))
    assert [alpha.shape for alpha in alphas] == [(70, 50), (90, 40)]
    assert all(alpha.dtype == np.float32 and alpha.min() >= 0 and alpha.max() <= 1 for alpha in alphas)


def test_an_image_alone_and_in_a_batch_has_the_same_matte():
    segmenter = build_segmenter(SPEC).eval()
    together = segmenter.predict_alphas(build_images(), PLAIN)
    alone = [segmenter.predict_alphas([image], PLAIN)[0] for image in build_images()]
    assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(together, alone, strict=True))


def test_training_leaves_the_trunk_alone():
    segmenter = build_segmenter(SPEC).train()
    before = {name: tensor.clone() for name, tensor in segmenter.network.trunk.state_dict().items()}
    segmenter(torch.rand(2, 3, 64, 64)).mean().backward()
    after = segmenter.network.trunk.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in segmenter.network.trunk.parameters())
    assert all(parameter.grad is not None for parameter in segmenter.network.up.parameters())


def test_the_saved_trunk_is_the_pretrained_one(tmp_path):
    build_segmenter(SPEC).save(tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    shipped = load_pretrained_trunk().features.state_dict()
    assert all(torch.equal(saved[f"trunk.features.{name}"], tensor) for name, tensor in shipped.items())


def test_log_odds_of_named_classes_are_those_of_the_softmax(segformer):
    segmenter = load_public_segmenter(str(segformer), ["wall", "floor"])
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = segmenter.network(pixel_values=(pixels - segmenter.mean) / segmenter.std).logits
        shirt = logits.softmax(1)[:, 1:2]
        odds = torch.nn.functional.interpolate((shirt / (1 - shirt)).log(), size=(64, 64), mode="bilinear")
        assert torch.allclose(segmenter(pixels), odds, atol=1e-5)


def test_the_background_is_kept_with_the_model(segformer, tmp_path):
    load_public_segmenter(str(segformer), ["wall", "floor"]).save(tmp_path / "model")
    again = load_segmenter(tmp_path / "model")
    assert again.background_classes == [0, 2]
    assert SegformerForSemanticSegmentation.from_pretrained(tmp_path / "model").config.num_labels == 3


def test_a_checkpoint_to_tune_gets_one_class_and_learns_all_of_itself(segformer):
    segmenter = load_trainable_segmenter(str(segformer))
    logits = segmenter(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 1, 64, 64)
    logits.mean().backward()
    first = next(segmenter.network.segformer.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("background", "named"),
    [
        ([], r"background is \[\]: name those classes .* wall, shirt, floor"),
        (["sky"], r"background is \['sky'\]"),
        (["wall", "shirt", "floor"], "name those classes of the segmenter that are no product"),
    ],
)
def test_wrong_background_classes_are_named(segformer, background, named):
    with pytest.raises(ValueError, match=named):
        load_public_segmenter(str(segformer), background)


def test_a_background_for_a_model_of_one_class_is_refused(tmp_path):
    build_segmenter(SPEC).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"background classes \['wall'\] are given"):
        load_public_segmenter(str(tmp_path / "model"), ["wall"])


def test_pickled_weights_and_missing_models_are_refused(segformer, tmp_path):
    pickled = tmp_path / "pickled"
    model = SegformerForSemanticSegmentation.from_pretrained(segformer)
    model.config.save_pretrained(pickled)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    for load in (load_segmenter, load_public_segmenter):
        with pytest.raises(ValueError, match="is no semantic segmentation model of transformers in safetensors"):
            load(str(pickled))
    with pytest.raises(ValueError, match="neither a directory nor a hub id"):
        load_public_segmenter(str(tmp_path / "nothing"))


def test_an_image_size_that_the_trunk_cannot_halve_is_refused():
    with pytest.raises(ValueError, match="'image_size' in section 'unet' is 100: it must be a multiple of 32"):
        read_section(UNetSpec, "unet", {"unet": {"image_size": 100, "channels": [8, 8, 8, 8]}})


def test_images_are_squeezed_onto_white():
    tensor = make_square_tensor(build_images()[1], 32)
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.uint8
    assert (tensor == 255).all()
