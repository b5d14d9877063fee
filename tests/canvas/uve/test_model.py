from dataclasses import asdict

import numpy as np
import pytest
import torch

from canvas.features.photographs import load_photo_features
from canvas.uve.model import UveModel, build_uve, compute_embeddings, load_uve, pack_codes, unpack_codes
from canvas.uve.spec import TaskWeights, UveSpec
from lifecycle.declare.params import read_section

SMALL = {"channels": [8, 8, 8, 8], "stem_width": 8}


def spec(**changes) -> UveSpec:
    values = {"trunk": "resnet10t", "trunk_args": SMALL, "image_size": 32, "embed_dim": 16, "init_from": None}
    return UveSpec(**values | changes)


@pytest.fixture(scope="module")
def model() -> UveModel:
    torch.manual_seed(0)
    return build_uve(spec()).eval()


def test_embeddings_are_of_unit_length_and_normalised_over_their_numbers(model):
    embeddings = compute_embeddings(model, torch.rand(3, 3, 40, 64) * 2 - 1)
    assert embeddings.shape == (3, 16)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(embeddings.mean(dim=1), torch.zeros(3), atol=1e-5)  # LayerNorm without affine


def test_images_are_squeezed_whole(model):
    image = torch.full((1, 3, 64, 32), -1.0)
    image[:, :, :8] = 1.0  # a crop of the middle square would lose it
    assert not torch.allclose(
        compute_embeddings(model, image), compute_embeddings(model, torch.full((1, 3, 64, 32), -1.0)), atol=1e-3
    )


def test_an_embedding_does_not_depend_on_its_batch(model):
    images = torch.rand(4, 3, 32, 32)
    assert torch.allclose(compute_embeddings(model, images)[:1], compute_embeddings(model, images[:1]), atol=1e-6)
    with pytest.raises(AssertionError, match="call eval"):
        compute_embeddings(build_uve(spec()), images)


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "uve")
    images = torch.rand(2, 3, 32, 32)
    for again in (load_uve(tmp_path / "uve"), build_uve(spec(init_from=str(tmp_path / "uve"))).eval()):
        torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(
            compute_embeddings(again, images), compute_embeddings(model, images), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match="differs in embed_dim: it has 16"):
        build_uve(spec(init_from=str(tmp_path / "uve"), embed_dim=32))


def test_any_trunk_of_timm_will_do():
    for trunk, args in (("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}), ("convnext_atto", {})):
        assert compute_embeddings(
            build_uve(spec(trunk=trunk, trunk_args=args)).eval(), torch.zeros(1, 3, 48, 32)
        ).shape == (1, 16)


def test_the_trunk_of_photographs_comes_with_its_weights_and_keeps_them(tmp_path):
    torch.manual_seed(0)
    model = build_uve(spec(trunk="open_nsfw", trunk_args={"layers": [1, 2]}, init_from="timm"))
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    before = [weight.clone() for weight in model.network.maps.parameters()]
    assert all(map(torch.equal, before, load_photo_features([1, 2]).parameters()))
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    assert [tuple(weight.shape) for weight in learning] == [(16, 2 * (128 + 256))]  # the projection alone

    optimizer = torch.optim.AdamW(learning, lr=0.1)
    model(images)[:, 0].sum().backward()
    optimizer.step()

    assert all(map(torch.equal, before, model.network.maps.parameters()))
    model.eval().save_pretrained(tmp_path / "uve")
    assert torch.equal(compute_embeddings(load_uve(tmp_path / "uve"), images), compute_embeddings(model, images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "resnet10x"}, r"uve.trunk 'resnet10x' is unknown to timm: try .*resnet10t"),
        ({"trunk": "efficientnet_lite0"}, "judges the generator's images: choose another"),
        ({"trunk": "tf_efficientnet_lite0.in1k"}, "judges the generator's images: choose another"),
        ({"trunk_args": {"depths": 3}}, "resnet10t cannot be built with {'depths': 3} for 32 pixels: .*depths"),
        ({"trunk": "vit_tiny_patch16_224", "trunk_args": {"num_heads": 0}}, "cannot be built with .* by zero"),
        ({"trunk_args": {"stem_width": 0}}, "resnet10t cannot be built with {'stem_width': 0} for 32 pixels: "),
        ({"trunk_args": {"channels": [8, 0, 8, 8]}}, "resnet10t cannot be built with "),
        ({"trunk_args": {"channels": [8]}}, "resnet10t cannot be built with "),
        ({"trunk_args": {"drop_rate": -1}}, "resnet10t cannot be built with "),
        ({"trunk": "vit_tiny_patch16_224", "trunk_args": {"img_size": 64}}, "cannot be built with .* for 32 pixels"),
        ({"trunk": "open_nsfw", "trunk_args": {"layers": [7]}}, r"layers are \[7\]: name some of 0 to 4"),
        ({"trunk": "open_nsfw", "trunk_args": {"num_classes": 3}}, "open_nsfw cannot be built with"),
        ({"init_from": "nowhere"}, "'nowhere' is neither a directory nor a hub id"),
        ({"image_size": None, "trunk": "open_nsfw", "trunk_args": {}}, "open_nsfw has no size of its own: name one"),
        ({"trunk": "transformers", "trunk_args": {}}, "name a directory or a hub id of such a model in uve.init_from"),
        ({"embed_dim": 12}, "embed_dim is 12: it must be a multiple of 8"),
    ],
)
def test_a_wrong_spec_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_uve(spec(**changes))


def test_dot_products_of_signs_count_differing_bits():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 16)).astype(np.float32)
    codes = pack_codes(vectors)
    assert codes.shape == (5, 2)
    assert codes.dtype == np.uint8
    hamming = ((vectors[:, None] > 0) != (vectors[None, :] > 0)).sum(axis=2)
    np.testing.assert_allclose(unpack_codes(codes) @ unpack_codes(codes).T, 1 - 2 * hamming / 16, atol=1e-6)


def test_images_below_the_least_size_are_refused():
    with pytest.raises(ValueError, match=r"'image_size' .* is 8"):
        read_section(UveSpec, "uve", {"uve": asdict(spec()) | {"image_size": 8}})


@pytest.mark.parametrize("weights", [(0, 0, 0, 0), (1, -1, 0, 0)])
def test_some_task_has_a_weight(weights):
    with pytest.raises(ValueError, match="tasks must have weights of 0 or more, one of them above 0"):
        TaskWeights(**dict(zip(("scene", "product", "category", "board"), weights, strict=True)))
