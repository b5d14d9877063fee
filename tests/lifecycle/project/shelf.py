"""The artifacts of the smallest project that has every kind of them."""

from __future__ import annotations

from lifecycle.stage import Dataset, Metrics, Model, Picture, Plot, Report


class Raw(Dataset):
    """Lines of numbers."""

    path = "data"
    pinned = True


class Numbers(Dataset):
    """One file a number."""

    path = "artifacts/numbers"


class Weights(Model):
    """The numbers' sum."""

    path = "models/weights"
    registered = "test-weights"


class TrainMetrics(Metrics):
    """The last loss."""

    path = "reports/train.json"


class TrainLosses(Plot):
    """Loss by step."""

    path = "reports/train_loss.csv"
    x = "step"
    y = "loss"


class ScoreReport(Report):
    """The score."""

    path = "reports/score.html"


class ScorePicture(Picture):
    """One pixel."""

    path = "reports/score.png"
