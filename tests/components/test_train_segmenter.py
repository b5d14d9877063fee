import onnx
import pytest
import torch
from onnx import TensorProto, helper
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from canvas.segmenter.model import load_public_segmenter, load_segmenter
from components.artifacts import Segmenter
from components.train_segmenter import train_segmenter
from tests.canvas.matting_repositories import READING
from tests.components.mugs import Log, run_tiny, tiny, write_catalogue

SOURCE = {"commit": "", "licence": "not stated"}


@pytest.fixture(scope="module")
def segformer(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("hub") / "segformer"
    small = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    config = SegformerConfig(**small, id2label={0: "wall", 1: "mug"}, label2id={"wall": 0, "mug": 1})
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(config).save_pretrained(path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return str(path)


def test_a_unet_is_trained_on_train_and_scored_on_each_held_out_split(mugs, tmp_path):
    log = Log()
    figures = run_tiny(train_segmenter, mugs, tmp_path / "out", log)
    assert log.steps == [10, 20, 30, 40]
    assert (tmp_path / "out" / "losses.csv").read_text().splitlines()[0] == "step,loss"
    assert len((tmp_path / "out" / "losses.csv").read_text().splitlines()) == 1 + len(log.steps)
    assert figures["unseen_view"]["pins_with_product"] + figures["unseen_view"]["pins_without"] == 3
    assert figures["unseen_product"]["pins_with_product"] + figures["unseen_product"]["pins_without"] == 2
    assert "train" not in figures
    assert 0 <= figures["unseen_product"]["iou"] <= 1
    assert figures["images_per_second"] > 0
    load_segmenter(tmp_path / "out" / "model")
    assert Segmenter.read_sources(tmp_path / "out" / "model") == {}


def test_a_checkpoint_is_used_as_it_is(mugs, segformer, tmp_path):
    as_it_is = {"init_from": segformer, "unet": None, "augment": None, "train": None, "background": ["wall"]}
    figures = run_tiny(train_segmenter, mugs, tmp_path / "out", **as_it_is)
    assert (tmp_path / "out" / "losses.csv").read_text() == "step,loss\n"
    assert "images_per_second" not in figures
    assert Segmenter.read_sources(tmp_path / "out" / "model") == {"model": SOURCE | {"repository": segformer}}
    before, after = load_public_segmenter(segformer, ["wall"]), load_segmenter(tmp_path / "out" / "model")
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name])


def test_a_matting_model_is_used_as_it_is(mugs, tmp_path):
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 3, 1, 1], [4.0, -2.0, -2.0])
    maps = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, 32, 32])
        for name, channels in (("image", 3), ("map", 1))
    ]
    nodes = [helper.make_node("Conv", ["image", "weight"], ["map"])]
    graph = helper.make_graph(nodes, "redness", maps[:1], maps[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "red.onnx"
    )
    as_it_is = {"init_from": str(tmp_path / "red.onnx"), "unet": None, "augment": None, "train": None}
    matting = READING | {"image_mean": [0.7, 0.5, 0.5], "image_std": [0.1, 0.1, 0.1]}
    figures = run_tiny(train_segmenter, mugs, tmp_path / "out", **as_it_is, matting=matting)
    assert figures["unseen_view"]["iou"] > 0.5
    assert load_segmenter(tmp_path / "out" / "model").size == 32
    source = SOURCE | {"repository": str(tmp_path)}
    assert Segmenter.read_sources(tmp_path / "out" / "model") == {"model": source}


def test_a_checkpoint_is_trained_further(mugs, segformer, tmp_path):
    run_tiny(train_segmenter, mugs, tmp_path / "out", init_from=segformer, unet=None)
    after = load_segmenter(tmp_path / "out" / "model")
    before = SegformerForSemanticSegmentation.from_pretrained(segformer)
    assert after.network.config.num_labels == 1
    assert Segmenter.read_sources(tmp_path / "out" / "model")["model"]["repository"] == segformer
    name = next(name for name in before.state_dict() if name.endswith("proj.weight"))
    assert not torch.equal(before.state_dict()[name], after.network.state_dict()[name])


def test_a_catalogue_without_truth_needs_a_checkpoint(tmp_path, segformer):
    write_catalogue(tmp_path, truth=False)
    with pytest.raises(ValueError, match=r"name a segmenter in train_segmenter\.init_from"):
        run_tiny(train_segmenter, tmp_path, tmp_path / "out")
    as_it_is = {"init_from": segformer, "unet": None, "augment": None, "train": None, "background": ["wall"]}
    figures = run_tiny(train_segmenter, tmp_path, tmp_path / "again", **as_it_is)
    assert list(figures) == ["seconds"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"init_from": "some/model"}, "give init_from or unet"),
        ({"unet": None}, "give init_from or unet"),
        ({"train": None}, "give both train and augment"),
        ({"train": None, "augment": None}, "a U-Net from scratch needs training"),
        ({"background": ["wall"]}, "training replaces the classes"),
        ({"matting": READING}, "matting reads a model as it is"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        tiny(train_segmenter, **changes)
