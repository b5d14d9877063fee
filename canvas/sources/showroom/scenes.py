"""The panoramas of the showroom and the words for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scene:
    """One panorama. `words` is how truth names it, `place` how a sentence does; both hold the same words.

    The sector of SECTOR degrees round `held_out_yaw` is for the unseen views only.
    """

    file: str
    words: str
    place: str
    held_out_yaw: float
    sentences: tuple[str, ...]


SECTOR = 90.0

SCENES = (
    Scene(
        "lebombo",
        "apartment",
        "in an apartment",
        130,
        (
            "An empty apartment with a wooden floor and warm light from a tall window.",
            "Soft light falls through the curtains of this bright apartment.",
            "Ideas for a calm apartment: pale walls, oak floor, daylight.",
        ),
    ),
    Scene(
        "potsdamer_platz",
        "city square",
        "on a city square",
        60,
        (
            "A wide city square between glass towers under an overcast sky.",
            "Office towers round a big city square on a quiet morning.",
            "Street view of a city square with red paving and a stone bench.",
        ),
    ),
    Scene(
        "kiara_1_dawn",
        "desert at dawn",
        "in the desert at dawn",
        60,
        (
            "Pink light over the rocks of the desert at dawn.",
            "The sun comes up behind the hills: the desert at dawn is all violet and rose.",
            "Bare rock, dry shrubs and a glowing sky in the desert at dawn.",
        ),
    ),
    Scene(
        "forest_slope",
        "forest",
        "in a forest",
        90,
        (
            "Sunlight between the trunks of a pine forest, moss on the ground.",
            "A walk in the forest: tall pines, roots and patches of sun.",
            "Quiet forest slope with ferns and old trees.",
        ),
    ),
    Scene(
        "st_fagans_interior",
        "lobby",
        "in a lobby",
        200,
        (
            "A light museum lobby with red benches and a green wall.",
            "Modern lobby design: wooden floor, round ceiling, low seats.",
            "Bright public lobby with space to sit and wait.",
        ),
    ),
    Scene(
        "dikhololo_night",
        "savanna at night",
        "in the savanna at night",
        300,
        (
            "Stars above the savanna at night, the last glow on the horizon.",
            "The savanna at night: dark grass, lone trees, the Milky Way.",
            "A clear sky over the savanna at night, far from any city.",
        ),
    ),
    Scene(
        "rooitou_park",
        "park meadow",
        "on a park meadow",
        100,
        (
            "Green grass and a deep blue sky over a park meadow.",
            "A sunny afternoon on a wide park meadow.",
            "Fresh lawn of a park meadow with trees at its edge.",
        ),
    ),
    Scene(
        "studio_small_03",
        "photo studio",
        "in a photo studio",
        130,
        (
            "A small photo studio with a softbox and a grey backdrop.",
            "Behind the scenes of a photo studio: lamps, cables, black curtains.",
            "How to light a photo studio with one softbox.",
        ),
    ),
    Scene(
        "venice_sunset",
        "waterfront at sunset",
        "on the waterfront at sunset",
        265,
        (
            "Stone quay and calm water: the waterfront at sunset.",
            "The sky turns gold above the waterfront at sunset.",
            "An evening walk along the waterfront at sunset.",
        ),
    ),
    Scene(
        "empty_warehouse_01",
        "warehouse",
        "in a warehouse",
        250,
        (
            "An empty warehouse with a concrete floor and neon tubes.",
            "Raw industrial warehouse with steel beams and wide windows.",
            "Old warehouse, ready to become a studio or a market.",
        ),
    ),
)
