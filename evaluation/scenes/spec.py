"""Params of the stage that shows and scores the generator in all it can be asked for: light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, MinLen

from canvas.ranges import Count, Natural
from evaluation.generator.spec import Splits


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneEvaluationSpec:
    """Which products `evaluate_scenes` shows, and on which canvases."""

    splits: Splits  # of the products that images are generated of
    products: Count  # pins, each in every mode and format
    scenes: Count  # of one product, of two and of three, each
    canvas: str  # of these scenes, WIDTHxHEIGHT or the name of a format
    formats: Annotated[Mapping[str, str], MinLen(1)]  # name -> canvas, likewise
    real_pins: Annotated[int, Ge(2)]  # held-out ones, whose products say how alike different products are
    sheet_rows: Count  # rows of each sheet, the first products and scenes; of so many products sizes are compared
    seed: Natural  # of the first image; the others count on

    def __post_init__(self) -> None:
        from canvas.layout.formats import parse_canvas

        canvases = {"canvas": self.canvas} | {f"formats.{name}": canvas for name, canvas in self.formats.items()}
        for name, canvas in canvases.items():
            try:
                parse_canvas(canvas)
            except ValueError as error:
                raise ValueError(f"evaluate_scenes.{name}: {error}") from None
        if self.sheet_rows > (most := min(self.products, self.scenes)):
            raise ValueError(
                f"evaluate_scenes.sheet_rows is {self.sheet_rows}: give at most {most}, as products and scenes allow"
            )
