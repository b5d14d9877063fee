"""The words of a pin: title, description, alt text and board. Product names and descriptions are the
catalogue's; the sentences round them are templates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from canvas.sources.showroom.products import Product
from canvas.sources.showroom.scenes import Scene


@dataclass(frozen=True, slots=True)
class PinText:
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
_TITLES_ON_WHITE = ("{name}", "{name} | Shop the look", "New in: {name}", "{name} on a plain background")
_TITLES_OF_SCENE = ("{words} inspiration", "A day {place}", "{words}: light and colours", "Backdrop idea: {words}")

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


def compose_in_scene_text(product: Product, scene: Scene, rng: np.random.Generator) -> PinText:
    title = _choose_text(_TITLES_IN_SCENE, rng).format(name=product.name, place=scene.place)
    description = f"{product.description} {product.name} {scene.place}."
    board = f"{scene.words.capitalize()} style" if rng.random() < 0.25 else _choose_text(_BOARDS[product.category], rng)
    return PinText(title, description, f"{product.name} {scene.place}", board)


def compose_on_white_text(product: Product, rng: np.random.Generator) -> PinText:
    title = _choose_text(_TITLES_ON_WHITE, rng).format(name=product.name)
    board = _choose_text(_BOARDS[product.category], rng)
    description = f"{product.description} {product.name} on a plain background."
    return PinText(title, description, f"{product.name} on a plain background", board)


def compose_scene_text(scene: Scene, rng: np.random.Generator) -> PinText:
    title = _choose_text(_TITLES_OF_SCENE, rng).format(words=scene.words, place=scene.place)
    where = scene.place.partition(" ")[2]  # without the preposition
    title = title[0].upper() + title[1:]
    return PinText(title, _choose_text(scene.sentences, rng), f"View of {where}", f"Places: {scene.words}")


def erase_text(text: PinText, rng: np.random.Generator) -> PinText:
    """Planted defect: nothing said, or only white space."""
    blank = _choose_text(("", " ", "\n"), rng)
    return PinText(blank, "", "", text.board)


def substitute_text(text: PinText, rng: np.random.Generator) -> PinText:
    """Planted defect: title and description of something else; alt text and board stay."""
    title, description = _UNRELATED[int(rng.integers(len(_UNRELATED)))]
    return PinText(title, description, text.alt_text, text.board)


def _choose_text(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
