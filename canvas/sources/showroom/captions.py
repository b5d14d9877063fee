"""True captions of showroom pins."""

from __future__ import annotations

from collections.abc import Mapping

from canvas.pins.captions import format_caption
from canvas.sources.showroom.scenes import SCENES

ON_WHITE = "on a white background"
_PLACES = {scene.words: scene.place for scene in SCENES}
_PLAIN = "on a plain background"


def compose_true_caption(pin: Mapping[str, object], truth: Mapping[str, object]) -> str:
    """What a showroom pin shows: the product's name from its alt text, the place from truth.

    `pin` needs alt_text; `truth` needs kind and scene. A picture whose place is unknown to the showroom is a bug.
    """
    place = None if truth["scene"] is None else _PLACES[str(truth["scene"])]
    match truth["kind"]:
        case "scene":
            return format_caption(None, str(place))
        case "on_white":
            return format_caption(str(pin["alt_text"]).removesuffix(_PLAIN), ON_WHITE)
        case _:
            return format_caption(str(pin["alt_text"]).removesuffix(str(place)), str(place))
