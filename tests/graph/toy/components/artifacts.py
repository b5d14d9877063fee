"""What the toy's stages exchange."""

from lifecycle.declare.stage import Dataset, Headline, Model, Pinned


class Numbers(Pinned):
    """One number a line."""

    path = "data"


class Squares(Dataset):
    """A directory with squares.txt, one number a line."""

    path = "artifacts/squares"


class Mean(Model):
    """A directory with mean.txt."""

    path = "models/mean"
    registered = "toy-mean"
    composite = True
    example = "cat models/mean/mean.txt"


class MeanFigures(Headline):
    """The mean."""

    path = "reports/metrics.json"
