"""Networks of others that put out one map, how much of each pixel is product: of transformers, of their own code, ONNX.

They are used as they are: what is saved are copies of their files. Shapes: B images, S x S the side that they see.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageMatting, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.modeling_outputs import SemanticSegmenterOutput

from canvas.hub import CONFIG_FILES, Snapshot, fetch_snapshot
from canvas.loading import LOADING_LOCK
from canvas.segmenter.spec import MattingSpec

READING_FILE = "matting.json"
"""Beside a saved network: how it is read, its code included, and where it came from."""

AUTO_CLASSES = ("AutoModelForImageSegmentation", "AutoModelForImageMatting", "AutoModel")
"""Names under which a repository offers code of its own, the best first."""

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Providers of onnxruntime, the best first."""

EPSILON = 1e-6  # opacities are kept this far from 0 and 1 before their logit
TOLERANCE = 1e-3  # by which opacities may leave 0..1


class MattingNetwork(PreTrainedModel):  # type: ignore[misc]
    """A network of others. pixel_values [B, 3, S, S] normalised -> log-odds of product [B, 1, S, S]."""

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, network: nn.Module, files: Sequence[Path], spec: MattingSpec, source: dict[str, str]) -> None:
        super().__init__(PreTrainedConfig(num_labels=1))
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("placed", torch.zeros(()), persistent=False)
        self.files = files
        self.spec = spec
        self.config.source = source

    @property
    def device(self) -> torch.device:
        """Where it takes images and leaves maps."""
        return torch.device(self.placed.device)

    @property
    def dtype(self) -> torch.dtype:
        """In which it takes images and leaves maps."""
        return torch.float32

    def train(self, mode: bool = True) -> MattingNetwork:
        """Stay in eval mode: nothing here is trained."""
        super().train(False)
        return self

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        output = self.network(pixel_values)
        if hasattr(output, "alphas"):  # of transformers' image matting
            return SemanticSegmenterOutput(logits=self._compute_log_odds(output.alphas, "opacity"))
        output = getattr(output, "logits", output)
        while isinstance(output, list | tuple):
            output = output[0 if self.spec.map == "first" else -1]
        return SemanticSegmenterOutput(logits=self._compute_log_odds(output, self.spec.output))

    def save_pretrained(self, save_directory: str | Path, **_: object) -> None:
        """Copy its files, and write how they are read."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        for file in self.files:
            shutil.copyfile(file, directory / file.name)
        reading = {"spec": asdict(self.spec), "source": self.config.source}
        (directory / READING_FILE).write_text(json.dumps(reading, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: str | Path, **_: object) -> MattingNetwork:
        """Load what `save_pretrained` wrote; its own code runs where it ran before."""
        folder = Path(directory)
        reading = json.loads((folder / READING_FILE).read_text(encoding="utf-8"))
        return _load_network(folder, MattingSpec(**reading["spec"]), reading["source"])

    def _compute_log_odds(self, values: torch.Tensor, kind: str) -> torch.Tensor:
        name = f"the map of {self.config.source['repository']}"
        if values.ndim != 4 or values.shape[1] != 1:
            raise ValueError(
                f"{name} is {list(values.shape)}, not [images, 1, height, width]: set matting.map to the other one of "
                "first and last, or name another model"
            )
        values = values.float()
        if kind == "logits":
            return values
        low, high = values.aminmax()
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise ValueError(
                f"{name} runs from {low:.3g} to {high:.3g}, and matting.output says opacity: set it to logits"
            )
        return torch.logit(values, EPSILON)


class OnnxNetwork(nn.Module):
    """An ONNX graph of one image input: pixels [B, 3, S, S] -> its outputs in their order."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # its own classes have no common base but this
            raise ValueError(f"{file} is no ONNX graph that can be run: {' '.join(str(error).split())}") from None
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if inputs else []
        if len(inputs) != 1 or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            described = ", ".join(f"{value.name} {value.shape}" for value in inputs)
            raise ValueError(f"{file} takes {described}: name a graph whose one input is [images, 3, height, width]")
        if shape[0] != 1 and isinstance(shape[0], int):
            raise ValueError(f"{file} takes batches of {shape[0]} images: export it for batches of any size, or of 1")
        self._input = inputs[0].name
        self._half = inputs[0].type == "tensor(float16)"
        self._one_by_one = shape[0] == 1
        self.sides: set[int] = {side for side in shape[2:] if isinstance(side, int)}

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        values = (pixels.half() if self._half else pixels.float()).cpu()
        batches = torch.split(values, 1) if self._one_by_one else [values]
        parts = [self._session.run(None, {self._input: batch.numpy()}) for batch in batches]
        outputs = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        return [output.to(pixels.device) for output in outputs]


def load_matting_network(
    source: str, spec: MattingSpec, *, revision: str | None = None, subfolder: str | None = None
) -> tuple[MattingNetwork, dict[str, Any]]:
    """Load a network of others, and the sizes and normalisation of its images: size, image_mean, image_std.

    Args:
        source: A directory, a hub id as OWNER/NAME@REVISION, or an ONNX file.
        spec: How it is read.
        revision: As `fetch_snapshot` takes it.
        subfolder: Likewise.

    Raises:
        ValueError: It cannot be fetched or read, wants code to run without leave, or its images' size is not known.
    """
    snapshot, spec = _fetch_network(source, spec, revision, subfolder)
    network = _load_network(snapshot.folder, spec, snapshot.describe())
    return network, _read_image_format(snapshot, network)


def find_remote_code(directory: Path) -> list[str]:
    """Return the names of the Python files that a saved network would run, none where it has none."""
    if not (directory / READING_FILE).is_file():
        return []
    return sorted(file.name for file in directory.glob("*.py"))


def _fetch_network(
    source: str, spec: MattingSpec, revision: str | None, subfolder: str | None
) -> tuple[Snapshot, MattingSpec]:
    """Fetch the files; the returned spec names an ONNX file by its name alone."""
    local = Path(source).expanduser()
    if local.is_file():
        if local.suffix != ".onnx" or spec.file is not None:
            raise ValueError(f"{source} is a file: name one that ends with .onnx, and set matting.file to null")
        return fetch_snapshot(str(local.parent)), replace(spec, file=local.name)
    if spec.file is None:
        weights = ("*.safetensors", "*.py")
        return fetch_snapshot(source, revision=revision, subfolder=subfolder, weights=weights), spec
    inner = Path(subfolder or "") / spec.file
    snapshot = fetch_snapshot(
        source,
        revision=revision,
        subfolder=None if inner.parent == Path() else str(inner.parent),
        weights=(f"{inner.name}*",),
    )
    if not (snapshot.folder / inner.name).is_file():
        raise ValueError(f"{source} holds no {spec.file}: name its ONNX file in matting.file")
    return snapshot, replace(spec, file=inner.name)


def _load_network(folder: Path, spec: MattingSpec, source: dict[str, str]) -> MattingNetwork:
    if spec.file is not None:
        return MattingNetwork(OnnxNetwork(folder / spec.file), _list_graph_files(folder / spec.file), spec, source)
    patterns = (*CONFIG_FILES, "*.safetensors", "*.py")
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)} - {folder / READING_FILE})
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{folder} holds no config.json: name a model's repository, or its ONNX file") from None
    if config.get("model_type") == "vitmatte":
        raise ValueError(f"{folder} is a ViTMatte, which needs a trimap beside the image: name a model that needs none")
    code = config.get("auto_map", {})
    name = next((name for name in AUTO_CLASSES if name in code), None)
    if name is None:
        return MattingNetwork(_load_library_network(folder), files, spec, source)
    if not spec.trust_remote_code:
        raise ValueError(
            f"{source['repository']} runs its own Python code ({code[name].partition('.')[0]}.py): read it, then set "
            "matting.trust_remote_code to true"
        )
    return MattingNetwork(_load_custom_network(folder, code, name, config), files, spec, source)


def _load_library_network(folder: Path) -> nn.Module:
    """Load an image matting model of transformers that takes an image alone."""
    try:
        with LOADING_LOCK:
            network: nn.Module = AutoModelForImageMatting.from_pretrained(
                str(folder), use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} is no image matting model of transformers in safetensors: {reason}") from None
    return network


def _load_custom_network(folder: Path, code: dict[str, str], name: str, config: dict[str, Any]) -> nn.Module:
    """Build a network by the code beside its weights.

    It is not built by `from_pretrained`: that builds on the meta device, where BiRefNet's code reads values.
    """
    if outside := sorted(reference for reference in code.values() if "--" in str(reference)):
        raise ValueError(f"{folder} wants code of another repository ({outside[0]}): copy it beside its weights")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(f"{folder} holds no weights in safetensors")
    try:
        with LOADING_LOCK:
            if "AutoConfig" in code:
                kind = get_class_from_dynamic_module(code["AutoConfig"], str(folder))
                settings = kind.from_pretrained(str(folder))
            else:
                settings = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
            network: nn.Module = get_class_from_dynamic_module(code[name], str(folder))(settings)
        state = {key: value for file in weights for key, value in load_file(file).items()}
        network.load_state_dict(state)
    except (ImportError, AttributeError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ValueError(f"{folder} cannot be loaded by its own code: {reason}") from None
    return network.float()


def _list_graph_files(file: Path) -> list[Path]:
    """Return an ONNX file and those that hold its weights."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    graph = onnx.load(file, load_external_data=False).graph
    names = {ExternalDataInfo(tensor).location for tensor in graph.initializer if uses_external_data(tensor)}
    return [file, *(file.parent / name for name in sorted(names))]


def _read_image_format(snapshot: Snapshot, network: MattingNetwork) -> dict[str, Any]:
    spec, stored = network.spec, snapshot.folder / "preprocessor_config.json"
    settings = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    if settings.get("do_normalize") is False:
        settings |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    sides = network.network.sides if isinstance(network.network, OnnxNetwork) else set()
    if len(sides) > 1:
        raise ValueError(f"{snapshot.repository} takes images of sides {sorted(sides)}: name a graph of square ones")
    size = spec.image_size or next(iter(sides), None) or _read_side(settings.get("size"))
    if sides and sides != {size}:
        raise ValueError(f"matting.image_size is {size}, but {snapshot.repository} takes {sides.pop()}: set it to null")
    mean, std = spec.image_mean or settings.get("image_mean"), spec.image_std or settings.get("image_std")
    values: dict[str, Any] = {"image_size": size, "image_mean": mean, "image_std": std}
    if missing := [name for name, value in values.items() if value is None]:
        raise ValueError(
            f"{snapshot.repository} does not say its {', '.join(missing)} in preprocessor_config.json: give "
            f"{', '.join(f'matting.{name}' for name in missing)}"
        )
    values["size"] = dict.fromkeys(("height", "width"), values.pop("image_size"))
    return values | {name: list(values[name]) for name in ("image_mean", "image_std")}


def _read_side(size: Any) -> int | None:
    """Return the side of the squares that a preprocessor_config.json states in one of its ways."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or size.get("longest_edge")
    elif isinstance(size, list):
        size = size[0] if size else None
    return None if size is None else int(size)
