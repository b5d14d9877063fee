"""Upscalers from where they lie: our own network's folder, or a public file of the Real-ESRGAN class."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from canvas.hub import VARIANTS, Snapshot, fetch_snapshot, write_source
from canvas.loading import check_initial_config, load_safetensors, read_model_config
from canvas.upscaler import ncnn
from canvas.upscaler.diffusion import DiffusionUpscaler
from canvas.upscaler.model import Upscaler
from canvas.upscaler.rrdb import RrdbUpscaler
from canvas.upscaler.spec import TrainUpscalerParams, UpscalerSpec

AnyUpscaler: TypeAlias = Upscaler | DiffusionUpscaler | RrdbUpscaler

KINDS = {"regression": Upscaler, "diffusion": DiffusionUpscaler}
"""upscaler.kind -> the network that `train_upscaler` makes of it."""

SUFFIXES = (".safetensors", ".pth", *ncnn.SUFFIXES)
"""Endings of files of weights; the first is preferred."""
FORMS = ".safetensors or .pth file, or a .bin with its .param"
"""What the files are, in words."""
NESTED = ("params_ema", "params")
"""Where public .pth files keep their weights, unless they are the weights themselves; averaged ones are preferred."""
OLD_NAMES = (
    ("RRDB_trunk.", "body."),
    (".RDB", ".rdb"),
    ("trunk_conv.", "conv_body."),
    ("upconv", "conv_up"),
    ("HRconv.", "conv_hr."),
)
"""Parts of names in files of ESRGAN -> in those of Real-ESRGAN."""


def load_initial_upscaler(spec: UpscalerSpec, params: TrainUpscalerParams) -> AnyUpscaler | None:
    """Load the upscaler of `params.init_from`, in eval mode; None: there is none.

    Raises:
        ValueError: `init_from` holds no upscaler, one of ours of another kind or size than `spec`, or is to be trained
            and is none of ours.
    """
    if params.init_from is None:
        return None
    network = load_upscaler(params.init_from)
    if isinstance(network, RrdbUpscaler):
        if params.train is not None:
            raise ValueError(
                f"train_upscaler.init_from {params.init_from} is of the Real-ESRGAN class, which is used as it is: set "
                "train_upscaler.train to null, or name what train_upscaler wrote"
            )
        return network
    if not isinstance(network, KINDS[spec.kind]):
        raise ValueError(
            f"train_upscaler.init_from {params.init_from} holds {type(network).__name__}, but upscaler.kind is "
            f"{spec.kind}: make them agree"
        )
    config = {"width": spec.width, "blocks": spec.blocks}
    check_initial_config(network.config, params.init_from, config, "train_upscaler")
    if isinstance(network, DiffusionUpscaler):
        network.register_to_config(steps=spec.steps)
    return network


def save_upscaler(network: AnyUpscaler, init_from: str | None, folder: Path) -> None:
    """Write an upscaler, and where its first weights came from."""
    network.save_pretrained(folder)
    if init_from is not None:
        write_source(_fetch_file(init_from, None, None)[0].describe(), folder)


def load_upscaler(source: str | Path) -> AnyUpscaler:
    """Load an upscaler in eval mode, as `fetch_upscaler` does."""
    return fetch_upscaler(str(source))[0]


def fetch_upscaler(
    source: str, *, revision: str | None = None, subfolder: str | None = None
) -> tuple[AnyUpscaler, dict[str, str]]:
    """Load an upscaler in eval mode; return it, and where it came from.

    Args:
        source: What `train_upscaler` wrote; a .safetensors or .pth file of Real-ESRGAN's network; its .bin or .param in
            the form of ncnn, whose twin lies beside it; or a directory or hub id with one such network. Of a hub
            repository with several, OWNER/NAME@REVISION/FILE names one.
        revision: As `canvas.hub.fetch_snapshot` takes it.
        subfolder: Likewise.

    Raises:
        ValueError: There is no such file, or it holds another network.
    """
    snapshot, file = _fetch_file(source, revision, subfolder)
    name = None if file is not None else read_model_config(snapshot.folder).get("_class_name")
    ours = [kind for kind in KINDS.values() if kind.__name__ == name]
    network: AnyUpscaler
    if ours:
        network = load_safetensors(ours[0], snapshot.folder)
    else:
        network = load_rrdb(file or _find_file(source, snapshot.folder))
    return network.eval(), snapshot.describe()


def _fetch_file(source: str, revision: str | None, subfolder: str | None) -> tuple[Snapshot, Path | None]:
    """Return a source's files, and the one among them that it names; None: it names a directory or a repository."""
    place = Path(source).expanduser()
    if place.suffix not in SUFFIXES or place.is_dir():
        patterns = tuple(f"*{suffix}" for suffix in SUFFIXES)
        return fetch_snapshot(source, revision=revision, subfolder=subfolder, weights=patterns), None
    folder, _, name = source.rpartition("/")
    files = tuple(file.name for file in ncnn.list_pair(place)) if place.suffix in ncnn.SUFFIXES else (name,)
    snapshot = fetch_snapshot(folder or ".", revision=revision, subfolder=subfolder, weights=files)
    file = snapshot.folder / name
    if not file.is_file():
        raise ValueError(f"{source} is missing: name a {FORMS}, a directory or a hub id")
    return replace(snapshot, repository=f"{snapshot.repository}/{name}"), file


def _find_file(source: str, folder: Path) -> Path:
    """Return the only file of weights in a folder."""
    for suffix in SUFFIXES:
        files = sorted(file for file in folder.glob(f"*{suffix}") if not any(map(file.match, VARIANTS)))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"{source} holds {names}: name one of them, as {source}/{files[0].name}")
        if files:
            return files[0]
    raise ValueError(f"{source} holds no {FORMS}: name one of Real-ESRGAN's network")


def load_rrdb(file: Path) -> RrdbUpscaler:
    """Load Real-ESRGAN's network, at the size that its weights have.

    Raises:
        ValueError: The file is damaged, or holds other weights.
    """
    weights = _read_weights(file)
    try:
        features, growth = len(weights["conv_first.weight"]), len(weights["body.0.rdb1.conv1.weight"])
    except (KeyError, TypeError):
        raise ValueError(
            f"{file} holds no network of the Real-ESRGAN class: it lacks conv_first.weight or body.0.rdb1.conv1.weight"
        ) from None
    blocks = len({name.split(".")[1] for name in weights if name.startswith("body.")})
    with torch.device("meta"):
        expected = {name: value.shape for name, value in RrdbUpscaler(features, 1, growth).state_dict().items()}
    for name, shape in list(expected.items()):
        if name.startswith("body.0."):
            expected |= {name.replace("body.0.", f"body.{block}.", 1): shape for block in range(blocks)}
    given = {name: value.shape for name, value in weights.items()}
    if different := sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)):
        raise ValueError(
            f"{file} is not of the form of RealESRGAN_x4plus.pth, a network that enlarges 4 times: it differs in "
            f"{different[0]}"
        )
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{file} holds weights that are no finite numbers: bring it back from where it was stored")
    network = RrdbUpscaler(features=features, blocks=blocks, growth=growth)
    network.load_state_dict(weights, strict=True)
    return network.eval()


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict by Real-ESRGAN's names, as float32; no code of a .pth file runs."""
    if file.suffix in ncnn.SUFFIXES:
        return ncnn.read_ncnn(file)
    loaded: Any  # of a .pth file anything that is no code
    try:
        if file.suffix == ".safetensors":
            loaded = load_file(file)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, LookupError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} cannot be read as weights: {reason}") from None
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{file} holds no weights by name, as RealESRGAN_x4plus.pth does")
    return {_rename(str(name)): value.float() for name, value in loaded.items()}


def _rename(name: str) -> str:
    for old, new in OLD_NAMES:
        name = name.replace(old, new)
    return name
