"""What the toy's stages exchange."""

from lifecycle.declare.pinned import Pinned
from lifecycle.declare.stage import Dataset, Headline, Model


class Numbers(Pinned, path="data"):
    """One number a line."""


class Squares(Dataset, path="artifacts/squares"):
    """A directory with squares.txt, one number a line."""


class Mean(Model, path="models/mean", registered="toy-mean"):
    """A directory with mean.txt."""

    composite = True
    example = "cat models/mean/mean.txt"


class MeanFigures(Headline, path="reports/metrics.json"):
    """The mean."""
