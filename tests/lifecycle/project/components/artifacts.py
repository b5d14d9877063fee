"""What the stages of the smallest project exchange; its composite is a number."""

from __future__ import annotations

from lifecycle.declare.stage import Dataset, Model, Pinned


class Raw(Pinned):
    """Lines of numbers."""

    path = "data"


class Numbers(Dataset):
    """One file a number."""

    path = "artifacts/numbers"


class Weights(Model):
    """The numbers' sum."""

    path = "models/weights"
    registered = "test-weights"
    composite = True
    example = "cat models/weights/model.safetensors"
