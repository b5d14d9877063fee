"""The toy's artifacts, one of each kind."""

from lifecycle.stage import Dataset, Metrics, Model, Picture, Plot, Report


class Numbers(Dataset):
    """One number a line; pinned."""

    path = "data"
    pinned = True


class Squares(Dataset):
    """A directory with squares.txt, one number a line."""

    path = "artifacts/squares"


class SquareMetrics(Metrics):
    """How many, and their sum."""

    path = "reports/square.json"


class SquareReport(Report):
    """The squares as a page."""

    path = "reports/square.html"


class SquareCurve(Plot):
    """n, its square and its cube."""

    path = "reports/square_curve.csv"
    x = "n"
    y = ("square", "cube")


class SquareSheet(Picture):
    """One black pixel."""

    path = "reports/square.png"


class Mean(Model):
    """A directory with mean.txt."""

    path = "models/mean"
    registered = "toy-mean"


class MeanMetrics(Metrics):
    """The mean itself."""

    path = "reports/mean.json"
