"""Tiny matting models as public repositories hold them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

CODE = textwrap.dedent(
    '''
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from .configuration_tiny import TinyConfig


    class TinyNet(PreTrainedModel):
        """As BiRefNet's code does: reads values while it is built, replaces its config, puts out a list of maps."""

        config_class = TinyConfig

        def __init__(self, config):
            super().__init__(config)
            rates = [rate.item() for rate in torch.linspace(0, 0.5, config.depth)]
            self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 1, 3, padding=1)) for _ in rates])
            self.config = dict(depth=config.depth)

        def forward(self, x):
            return [layer(x) for layer in self.layers]
    '''
)
CONFIGURATION = textwrap.dedent(
    """
    from transformers import PretrainedConfig


    class TinyConfig(PretrainedConfig):
        model_type = "tiny_net"

        def __init__(self, depth=2, **kwargs):
            self.depth = depth
            super().__init__(**kwargs)
    """
)


READING: Mapping[str, Any] = {
    "output": "logits",
    "map": "last",
    "file": None,
    "image_size": None,
    "image_mean": None,
    "image_std": None,
    "trust_remote_code": False,
}
"""How a repository is read that says the format of its images itself."""


def write_custom_repository(folder: Path, layers: Sequence[torch.nn.Conv2d]) -> Path:
    """Write a repository with code of its own, whose maps are those of the layers."""
    folder.mkdir()
    (folder / "modeling_tiny.py").write_text(CODE)
    (folder / "configuration_tiny.py").write_text(CONFIGURATION)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    auto_map = {
        "AutoConfig": "configuration_tiny.TinyConfig",
        "AutoModelForImageSegmentation": "modeling_tiny.TinyNet",
    }
    config = {"model_type": "tiny_net", "depth": len(layers), "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    state = {
        f"layers.{index}.0.{name}": value
        for index, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_graph(
    file: Path, layer: torch.nn.Conv2d, *, batch: int | str = "batch", side: int | str = "side", opacity: bool = False
) -> Path:
    """An ONNX file of one convolution, its sigmoid first where `opacity` is asked for."""
    weights = {name: numpy_helper.from_array(value.numpy(), name) for name, value in layer.state_dict().items()}
    nodes = [helper.make_node("Conv", ["input", "weight", "bias"], ["map"], pads=[1, 1, 1, 1])]
    outputs = [helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 1, side, side])]
    if opacity:
        nodes.append(helper.make_node("Sigmoid", ["map"], ["opacity"]))
        outputs.insert(0, helper.make_tensor_value_info("opacity", TensorProto.FLOAT, [batch, 1, side, side]))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, list(weights.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)
    return file
