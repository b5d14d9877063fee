"""Average the squares."""

import json
from dataclasses import dataclass

from components.artifacts import Mean, MeanFigures, Squares
from lifecycle.declare.stage import Input, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounding:
    digits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanParams:
    rounding: Rounding


@stage(machine="gpus")
def mean(mean: MeanParams, squares: Input[Squares], model: Output[Mean], metrics: Output[MeanFigures]) -> None:
    """Average the squares into a model."""
    squared = [int(line) for line in (squares.path / "squares.txt").read_text().split()]
    model.path.mkdir()
    value = round(sum(squared) / len(squared), mean.rounding.digits)
    (model.path / "mean.txt").write_text(f"{value} {type(mean.rounding.digits).__name__}")
    metrics.path.write_text(json.dumps({"mean": value}))
