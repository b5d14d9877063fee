"""A composite model as MLflow stores and loads it: a pyfunc without pickle."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from lifecycle.stage import Served

REQUIREMENTS = ("torch", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors", "tokenizers", "pillow")
"""What loads the files, beside this project at the version's `git_sha`."""


def write_pyfunc(folder: Path, files: Path, served: Served) -> None:
    """Write `files` as an MLflow model into `folder`: their loader is named, not pickled, and the signature says
    what `predict` takes and gives."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=served.loader,
        data_path=str(files),
        signature=ModelSignature(
            inputs=Schema([ColSpec(kind, name) for name, kind in served.inputs.items()]),
            outputs=Schema([ColSpec(kind, name) for name, kind in served.outputs.items()]),
            params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in served.options.items()]),
        ),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )
