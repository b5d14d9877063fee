"""Params of reference judges: light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSpec:
    """A frozen network that no stage trains."""

    repository: str  # a directory, or a hub id as OWNER/NAME@REVISION
    digest: str  # of its files; the message that refuses a wrong one names the right one


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceSegmenterSpec(ReferenceSpec):
    """A frozen segmenter."""

    background: tuple[str, ...]  # classes that are no product; [] for a model of one class


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferencesSpec:
    """Judges that score both sides in place of the challenger's own networks; null: the challenger's own do."""

    segmenter: ReferenceSegmenterSpec | None  # measures extension and erosion
    text_image: ReferenceSpec | None  # of transformers, as CLIP or SigLIP: measures agreement


def describe_own_judges(frozen: Mapping[str, float]) -> list[str]:
    """Say which measures the challenger's own networks make of both sides; `frozen`: reference -> is there one?"""
    measures = {"segmenter": ("extension and erosion", "segmenter"), "text_image": ("agreement", "text-image encoder")}
    return [
        f"{names} of both sides are by the challenger's own {network}: evaluate.references.{name} names a frozen one"
        for name, (names, network) in measures.items()
        if frozen.get(name) == 0
    ]
