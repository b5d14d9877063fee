"""The words of a pin: title, description, alt text, board, and the true caption.

Product names and descriptions are the catalogue's; the sentences round them are templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from canvas.pins.captions import format_caption
from canvas.sources.showroom.products import Product
from canvas.sources.showroom.spec import SCENES, Scene


@dataclass(frozen=True, slots=True)
class PinText:
    """Columns of tables.PINS."""

    title: str
    description: str
    alt_text: str
    board: str


_TITLES_IN_SCENE = (
    "{name} {place}",
    "{name}, shown {place}",
    "{name} for every day: {place}",
    "Style idea: {name} {place}",
    "{name}",
)
_PLAIN = "on a plain background"
_TITLES_ON_WHITE = ("{name}", "{name} | Shop the look", "New in: {name}", "{name} {place}")
_TITLES_OF_SCENE = ("{words} inspiration", "A day {place}", "{words}: light and colours", "Backdrop idea: {words}")

SENTENCES = {
    "apartment": (
        "An empty apartment with a wooden floor and warm light from a tall window.",
        "Soft light falls through the curtains of this bright apartment.",
        "Ideas for a calm apartment: pale walls, oak floor, daylight.",
    ),
    "city square": (
        "A wide city square between glass towers under an overcast sky.",
        "Office towers round a big city square on a quiet morning.",
        "Street view of a city square with red paving and a stone bench.",
    ),
    "desert at dawn": (
        "Pink light over the rocks of the desert at dawn.",
        "The sun comes up behind the hills: the desert at dawn is all violet and rose.",
        "Bare rock, dry shrubs and a glowing sky in the desert at dawn.",
    ),
    "forest": (
        "Sunlight between the trunks of a pine forest, moss on the ground.",
        "A walk in the forest: tall pines, roots and patches of sun.",
        "Quiet forest slope with ferns and old trees.",
    ),
    "lobby": (
        "A light museum lobby with red benches and a green wall.",
        "Modern lobby design: wooden floor, round ceiling, low seats.",
        "Bright public lobby with space to sit and wait.",
    ),
    "savanna at night": (
        "Stars above the savanna at night, the last glow on the horizon.",
        "The savanna at night: dark grass, lone trees, the Milky Way.",
        "A clear sky over the savanna at night, far from any city.",
    ),
    "park meadow": (
        "Green grass and a deep blue sky over a park meadow.",
        "A sunny afternoon on a wide park meadow.",
        "Fresh lawn of a park meadow with trees at its edge.",
    ),
    "photo studio": (
        "A small photo studio with a softbox and a grey backdrop.",
        "Behind the scenes of a photo studio: lamps, cables, black curtains.",
        "How to light a photo studio with one softbox.",
    ),
    "waterfront at sunset": (
        "Stone quay and calm water: the waterfront at sunset.",
        "The sky turns gold above the waterfront at sunset.",
        "An evening walk along the waterfront at sunset.",
    ),
    "warehouse": (
        "An empty warehouse with a concrete floor and neon tubes.",
        "Raw industrial warehouse with steel beams and wide windows.",
        "Old warehouse, ready to become a studio or a market.",
    ),
}
"""Words of a scene -> descriptions of it."""

_BOARDS = {
    "Paints": ("Home makeover", "Colours for the wall", "Do it yourself"),
    "Juices": ("Healthy drinks", "Breakfast ideas", "Fresh and fruity"),
    "Alcohol": ("Wine and beer", "Dinner party", "Weekend drinks"),
    "Homewares": ("Cosy living room", "Sofa and cushions", "Home decor"),
    "Footwear": ("Summer shoes", "Sneaker love", "Street style"),
    "T-shirts": ("T-shirt prints", "Casual outfits", "Street style"),
    "Polo Shirts": ("Smart casual", "Polo shirts", "Casual outfits"),
    "Hoodies": ("Hoodie season", "Cosy outfits", "Street style"),
}

_UNRELATED = (
    ("Seven tips to file your tax return early", "Collect receipts, check deductions and send the forms before April."),
    ("How to train a puppy in two weeks", "Patience, treats and a fixed schedule teach a young dog to sit and stay."),
    ("Guitar chords for beginners", "Learn G, C and D first, then practise changing between them slowly."),
    ("Champions league final: full match report", "A late penalty decided a tense game in front of 70,000 fans."),
    ("The history of the steam locomotive", "From Trevithick to the Mallard, how railways changed freight and travel."),
    ("Grandma's lasagne recipe", "Layer pasta, ragu and bechamel, then bake for forty minutes until golden."),
    ("Mortgage rates explained", "Fixed or variable? What a central bank's decision means for your loan."),
    ("Learn Spanish verbs with flashcards", "Conjugate the fifty most frequent verbs in ten minutes a day."),
    ("Car maintenance checklist", "Oil, brake fluid, tyre pressure and filters: what to inspect every season."),
    ("Newborn sleep schedule", "When babies nap in the first twelve weeks and how parents can rest."),
    ("Chess openings: the Sicilian defence", "Why black answers king's pawn with c5, with annotated games."),
    ("Yoga poses for back pain", "Cat, cow and child's pose stretch the spine; hold each for five breaths."),
    ("Quantum physics for kids", "Atoms, photons and a cat that is both asleep and awake."),
    ("Job interview questions", "Answers that recruiters like to hear about weaknesses and salary."),
    ("Crochet pattern: baby blanket", "Chain eighty stitches, then double crochet every row in soft cotton yarn."),
    ("How volcanoes erupt", "Magma chambers, pressure and gas: geology of Etna and Krakatoa."),
)


def compose_true_caption(pin: Mapping[str, object], truth: Mapping[str, object]) -> str:
    """Compose what a showroom pin shows: the product's name from its alt text, the place from truth.

    `pin` needs alt_text; `truth` needs kind and scene. A scene that is not the showroom's is a bug.
    """
    name = str(pin["alt_text"])
    if truth["kind"] == "on_white":
        return format_caption(name.removesuffix(_PLAIN), "on a white background")
    (place,) = (scene.place for scene in SCENES if scene.words == truth["scene"])
    return format_caption(None if truth["kind"] == "scene" else name.removesuffix(place), place)


def compose_text(product: Product | None, scene: Scene | None, rng: np.random.Generator) -> PinText:
    """Compose the text of a product in a scene, of a product on white, or of a scene alone."""
    if product is None:
        assert scene is not None
        title = _choose_text(_TITLES_OF_SCENE, rng).format(words=scene.words, place=scene.place)
        description = _choose_text(SENTENCES[scene.words], rng)
        where = scene.place.partition(" ")[2]  # without the preposition
        return PinText(title[0].upper() + title[1:], description, f"View of {where}", f"Places: {scene.words}")
    place = scene.place if scene else _PLAIN
    title = _choose_text(_TITLES_IN_SCENE if scene else _TITLES_ON_WHITE, rng).format(name=product.name, place=place)
    if scene and rng.random() < 0.25:
        board = f"{scene.words.capitalize()} style"
    else:
        board = _choose_text(_BOARDS[product.category], rng)
    alt_text = f"{product.name} {place}"
    return PinText(title, f"{product.description} {alt_text}.", alt_text, board)


def erase_text(text: PinText, rng: np.random.Generator) -> PinText:
    """Planted defect: no text, or only white space."""
    blank = _choose_text(("", " ", "\n"), rng)
    return PinText(blank, "", "", text.board)


def substitute_text(text: PinText, rng: np.random.Generator) -> PinText:
    """Planted defect: title and description of something else; alt text and board stay."""
    title, description = _UNRELATED[int(rng.integers(len(_UNRELATED)))]
    return PinText(title, description, text.alt_text, text.board)


def _choose_text(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
