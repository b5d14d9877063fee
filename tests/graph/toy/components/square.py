"""Square the numbers."""

import json
from dataclasses import dataclass

from components.artifacts import Numbers, Squares
from lifecycle.declare.stage import Input, Metrics, Output, Plot, Report, Sheet, StepLog, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class SquareParams:
    first: int
    offset: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    label: str


class SquareCurve(Plot):
    """n, its square and its cube."""

    x = "n"
    y = ("square", "cube")


@stage(machine="cpu")
def square(
    square: SquareParams,
    shared: Shared,
    numbers: Input[Numbers],
    squares: Output[Squares],
    metrics: Output[Metrics],
    report: Output[Report],
    curve: Output[SquareCurve],
    sheet: Output[Sheet],
    log: StepLog,
) -> None:
    """Square the first numbers of the file."""
    from canvas.pixels import black_pixel

    first = [int(line) for line in (numbers.path / "numbers.txt").read_text().split()][: square.first]
    squares.path.mkdir()
    (squares.path / "squares.txt").write_text("\n".join(str(number * number) for number in first))
    sums = {"count": len(first), "sum": {"squares": sum(number * number for number in first) + square.offset}}
    metrics.path.write_text(json.dumps(sums))
    report.path.write_text(f"<!doctype html><title>Squares</title><p>{shared.label}: {first}</p>")
    curve.path.write_text("n,square,cube\n" + "".join(f"{n},{n**2},{n**3}\n" for n in first))
    sheet.path.write_bytes(black_pixel())
    log.metrics({"count": len(first)}, step=0)
