"""A composite model as MLflow stores and loads it: a pyfunc without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.declare.registry import Served

if TYPE_CHECKING:
    from mlflow.types import ColSpec

REQUIREMENTS = (
    *("torch", "diffusers", "transformers", "peft", "open_clip_torch", "timm"),
    *("safetensors", "tokenizers", "pillow"),
)
"""What loads the files, beside this project at the version's `git_sha`."""


def write_pyfunc(folder: Path, files: Path, served: Served) -> None:
    """Write `files` as an MLflow model into `folder`: their loader is named, not pickled, and the signature says
    what `predict` takes and gives."""
    from importlib.metadata import version

    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema

    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=served.loader,
        data_path=str(files),
        signature=ModelSignature(
            inputs=Schema([_column(name, kind) for name, kind in served.inputs.items()]),
            outputs=Schema([_column(name, kind) for name, kind in served.outputs.items()]),
            params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in served.options.items()]),
        ),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )


def _column(name: str, kind: str) -> ColSpec:
    """Return a column of a type as `Served` says it."""
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    single = kind.removesuffix("?")
    item = DataType[single.removesuffix("[]")]
    return ColSpec(Array(item) if single.endswith("[]") else item, name, required=not kind.endswith("?"))
