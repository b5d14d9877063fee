"""What the stages of the smallest project exchange; its composite is a number."""

from __future__ import annotations

from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import Dataset, Model


class Raw(Pinned, path="data"):
    """Lines of numbers."""


class Numbers(Dataset, path="artifacts/numbers"):
    """One file a number."""


class Weights(Model, path="models/weights", registered="test-weights"):
    """The numbers' sum."""

    composite = True
    example = "cat models/weights/model.safetensors"
