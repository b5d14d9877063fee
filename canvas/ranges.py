"""Ranges that params state beside their type: checked where params are read, shown on the page of params."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MultipleOf

Count = Annotated[int, Ge(1)]
NetworkSide = Annotated[int, Ge(32), MultipleOf(32)]
Connections = Annotated[int, Ge(1), Le(1000)]
FileBytes = Annotated[int, Ge(1), Le(10**11)]
Natural = Annotated[int, Ge(0)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Seconds = Annotated[float, Gt(0), Le(604_800)]  # a week: far less than the clocks of a system can count
Share = Annotated[float, Ge(0), Le(1)]
PartialShare = Annotated[float, Ge(0), Lt(1)]
Half = Annotated[float, Ge(0), Le(0.5)]
Cosine = Annotated[float, Ge(-1), Le(1)]
GuidanceScale = Annotated[float, Ge(1)]
