"""Matting models as their own libraries save them: code of their own, transformers', ONNX."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import Sapiens2Config, Sapiens2ForImageMatting, Sapiens2HeadConfig, VitMatteConfig

from canvas.segmenter.matting import find_remote_code
from canvas.segmenter.model import Segmenter, load_public_segmenter, load_segmenter
from canvas.segmenter.spec import EdgeSpec, MattingSpec
from tests.canvas.matting_repositories import READING, write_custom_repository, write_graph

pytestmark = pytest.mark.usefixtures("modules_cache")

PLAIN = EdgeSpec(radius=0, epsilon=1e-3)
FORMAT: dict[str, Any] = {"image_size": 32, "image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def build_spec(**changes: Any) -> MattingSpec:
    return MattingSpec(**(READING | changes))


LOGITS = build_spec(trust_remote_code=True)


def build_images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    return [Image.fromarray(noise), Image.new("RGBA", (40, 90), (200, 10, 10, 0))]


def normalize_images(segmenter: Segmenter, pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - segmenter.mean) / segmenter.std


@pytest.fixture(scope="module")
def convolutions() -> list[torch.nn.Conv2d]:
    torch.manual_seed(0)
    return [torch.nn.Conv2d(3, 1, 3, padding=1) for _ in range(2)]


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory, convolutions: list[torch.nn.Conv2d]) -> Path:
    return write_custom_repository(tmp_path_factory.mktemp("hub") / "tiny-net", convolutions)


def check_same_when_loaded(segmenter: Segmenter, folder: Path) -> None:
    segmenter.save(folder)
    for before, after in zip(
        segmenter.predict_alphas(build_images(), PLAIN),
        load_segmenter(folder).predict_alphas(build_images(), PLAIN),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("chosen", ["first", "last"])
def test_code_of_its_own_puts_out_one_of_its_maps(
    custom: Path, convolutions: list[torch.nn.Conv2d], tmp_path: Path, chosen: Any
) -> None:
    spec = build_spec(output="logits", map=chosen, trust_remote_code=True)
    segmenter = load_public_segmenter(str(custom), matting=spec)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = convolutions[0 if chosen == "first" else -1]
    with torch.no_grad():
        torch.testing.assert_close(segmenter(pixels), layer(normalize_images(segmenter, pixels)))
    assert segmenter.size == 32
    assert segmenter.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    check_same_when_loaded(segmenter, tmp_path / "model")
    assert load_segmenter(tmp_path / "model").network.config.source["licence"] == "mit"
    assert find_remote_code(tmp_path / "model") == ["configuration_tiny.py", "modeling_tiny.py"]


def test_code_runs_only_with_leave(custom: Path, tmp_path: Path, modules_cache: Path) -> None:
    folder = tmp_path / "unread"
    shutil.copytree(custom, folder)
    with pytest.raises(ValueError, match=r"own Python code \(modeling_tiny.py\): read it, then set matting.trust"):
        load_public_segmenter(str(folder), matting=build_spec(output="logits"))
    with pytest.raises(ValueError, match="is no semantic segmentation model"):
        load_public_segmenter(str(folder))
    assert not list(modules_cache.rglob("unread*"))


def test_leave_that_a_repository_gives_itself_does_not_count(custom: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    load_public_segmenter(str(custom), matting=LOGITS).save(folder)
    with pytest.raises(ValueError, match="own Python code"):
        load_public_segmenter(str(folder), matting=build_spec(output="logits"))


def test_code_of_another_repository_is_refused(custom: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    shutil.copytree(custom, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "somebody/else--configuration_tiny.TinyConfig"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="code of another repository"):
        load_public_segmenter(str(folder), matting=LOGITS)


def test_weights_that_do_not_fit_the_code_are_refused(custom: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    shutil.copytree(custom, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights in safetensors"):
        load_public_segmenter(str(folder), matting=LOGITS)
    save_file({"layers.0.0.bias": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"cannot be loaded by its own code: .*layers\.0\.0\.weight"):
        load_public_segmenter(str(folder), matting=LOGITS)


def test_image_matting_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Sapiens2Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        image_size=32,
        patch_size=16,
        num_register_tokens=1,
        num_labels=4,
        head_config=Sapiens2HeadConfig(upsample_out_channels=[8], conv_out_channels=[8]),
    )
    network = Sapiens2ForImageMatting(config).eval()
    network.save_pretrained(tmp_path / "hub")
    segmenter = load_public_segmenter(str(tmp_path / "hub"), matting=build_spec(output="opacity", **FORMAT))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alphas = network(normalize_images(segmenter, pixels)).alphas
        torch.testing.assert_close(segmenter.network(normalize_images(segmenter, pixels)).logits.sigmoid(), alphas)
    check_same_when_loaded(segmenter, tmp_path / "model")


def test_models_that_need_a_trimap_are_refused(tmp_path: Path) -> None:
    VitMatteConfig().save_pretrained(tmp_path / "hub")
    with pytest.raises(ValueError, match="is a ViTMatte, which needs a trimap"):
        load_public_segmenter(str(tmp_path / "hub"), matting=build_spec(output="opacity", **FORMAT))


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("opacity", [True, False])
def test_onnx_file_gives_what_torch_gives(
    convolutions: list[torch.nn.Conv2d], tmp_path: Path, batch: int | str, opacity: bool
) -> None:
    file = write_graph(tmp_path / "tiny.onnx", convolutions[0], batch=batch, opacity=opacity)
    spec = build_spec(output="opacity" if opacity else "logits", map="first", **FORMAT)
    segmenter = load_public_segmenter(str(file), matting=spec)
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = convolutions[0](normalize_images(segmenter, pixels))
    torch.testing.assert_close(segmenter(pixels), expected, rtol=1e-4, atol=1e-4)
    assert not list(segmenter.parameters())
    check_same_when_loaded(segmenter, tmp_path / "model")
    assert not find_remote_code(tmp_path / "model")


def test_onnx_file_of_a_repository_says_its_own_size(convolutions: list[torch.nn.Conv2d], tmp_path: Path) -> None:
    (tmp_path / "hub" / "onnx").mkdir(parents=True)
    write_graph(tmp_path / "hub" / "onnx" / "model.onnx", convolutions[0], side=48)
    values = FORMAT | {"image_size": None}
    spec = build_spec(output="logits", file="onnx/model.onnx", **values)
    assert load_public_segmenter(str(tmp_path / "hub"), matting=spec).size == 48
    with pytest.raises(ValueError, match=r"image_size is 32, but .* takes 48"):
        load_public_segmenter(
            str(tmp_path / "hub"), matting=build_spec(output="logits", file="onnx/model.onnx", **FORMAT)
        )
    with pytest.raises(ValueError, match=r"holds no model\.onnx"):
        load_public_segmenter(str(tmp_path / "hub"), matting=build_spec(output="logits", file="model.onnx"))


def test_onnx_weights_beside_the_file_are_saved_with_it(convolutions: list[torch.nn.Conv2d], tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    model = onnx.load(write_graph(tmp_path / "tiny.onnx", convolutions[0]))
    onnx.save(model, tmp_path / "hub" / "tiny.onnx", save_as_external_data=True, location="tiny.data", size_threshold=0)
    spec = build_spec(output="logits", file="tiny.onnx", **FORMAT)
    check_same_when_loaded(load_public_segmenter(str(tmp_path / "hub"), matting=spec), tmp_path / "model")
    assert (tmp_path / "model" / "tiny.data").is_file()


def test_unknown_image_format_is_asked_for(convolutions: list[torch.nn.Conv2d], tmp_path: Path) -> None:
    file = write_graph(tmp_path / "tiny.onnx", convolutions[0])
    with pytest.raises(ValueError, match=r"give matting\.image_size, matting\.image_mean, matting\.image_std"):
        load_public_segmenter(str(file), matting=build_spec(output="logits"))


def test_logits_that_are_called_opacity_are_refused(convolutions: list[torch.nn.Conv2d], tmp_path: Path) -> None:
    file = write_graph(tmp_path / "tiny.onnx", convolutions[0])
    segmenter = load_public_segmenter(str(file), matting=build_spec(output="opacity", **FORMAT))
    with pytest.raises(ValueError, match=r"matting\.output says opacity: set it to logits"):
        segmenter.predict_alphas(build_images(), PLAIN)


def test_onnx_file_for_batches_of_four_is_refused(convolutions: list[torch.nn.Conv2d], tmp_path: Path) -> None:
    file = write_graph(tmp_path / "tiny.onnx", convolutions[0], batch=4)
    with pytest.raises(ValueError, match="takes batches of 4 images"):
        load_public_segmenter(str(file), matting=build_spec(output="logits", **FORMAT))


def test_files_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is no ONNX graph"):
        load_public_segmenter(str(tmp_path / "broken.onnx"), matting=build_spec(output="logits", **FORMAT))
    (tmp_path / "model.pt").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match=r"name one that ends with \.onnx"):
        load_public_segmenter(str(tmp_path / "model.pt"), matting=build_spec(output="logits", **FORMAT))
