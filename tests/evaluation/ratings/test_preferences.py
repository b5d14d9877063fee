"""From ratings and candidates to what the reward model may learn: on real tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.images import decode_image, encode_jpeg, encode_png
from canvas.pins.masks import decode_mask, encode_mask
from evaluation.ratings.preferences import collect_preferences, merge_preferences
from lifecycle.workspace.digest import digest, read_pin
from tests.evaluation.ratings.test_agreement import row

ROOT = Path(__file__).parents[3]
SIZE = (600, 300)


def candidate(name: str, level: int, pin: str = "p1") -> dict[str, Any]:
    mask = np.zeros(SIZE[::-1], bool)
    mask[:, :300] = True
    return dict.fromkeys(tables.CANDIDATES.names) | {
        "candidate_id": name,
        "pin_id": pin,
        "prompt": "mug, in a forest",
        "image": encode_png(Image.new("RGB", SIZE, (level, 0, 0))),
        "mask": encode_mask(mask),
    }


def learnable(folder: Path, judgments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Preferences collected from `judgments` of two images each of the items 0 and 1, and no others."""
    folder.mkdir(exist_ok=True)
    pin = dict.fromkeys(tables.PINS.names) | {"pin_id": "p1", "product_id": "mug"}
    pin["image"] = encode_jpeg(Image.new("RGB", SIZE, (9, 9, 9)))
    painted = [candidate(f"{model}-{item}", level) for item in (0, 1) for model, level in (("new", 40), ("old", 80))]
    for name, rows, schema in (
        ("ratings", judgments, tables.JUDGMENTS),
        ("candidates", painted, tables.CANDIDATES),
        ("pins", [pin, pin | {"pin_id": "p2", "image": b"broken"}], tables.PINS),
    ):
        tables.write(folder / name, [pa.Table.from_pylist(rows, schema)], schema)
    return collect_preferences(folder / "ratings", folder / "candidates", folder / "pins")


def test_judgments_of_a_pair_become_one_row_with_small_pictures(tmp_path: Path) -> None:
    """In pair 1 the old image stands on the left; both rows speak of the new one, the first in the alphabet."""
    judgments = [row(pair, rater, value) for pair in (0, 1) for rater, value in (("a", 1.0), ("b", 1.0), ("c", 0.5))]
    judgments += [row(1, "a", 0.0, question="fidelity"), row(7, "a", 1.0)]
    preferences = learnable(tmp_path / "tables", judgments)
    assert [(one["first"], one["second"], one["judgments"]) for one in preferences] == [
        ("new-0", "old-0", 3),
        ("new-1", "old-1", 4),
    ]
    assert [one["preference"] for one in preferences] == pytest.approx([5 / 6, 5 / 6])
    assert [one["fidelity"] for one in preferences] == [None, 0.0]
    assert {(one["pin_id"], one["product_id"], one["prompt"]) for one in preferences} == {
        ("p1", "mug", "mug, in a forest")
    }
    images = {name: decode_image(preferences[0][name]) for name in ("product", "first_image", "second_image")}
    assert {image.size for image in images.values()} == {(256, 128)}
    assert [image.getpixel((0, 0)) for image in images.values()] == [(9, 9, 9), (40, 0, 0), (80, 0, 0)]
    mask = decode_mask(preferences[0]["mask"])
    assert mask[:, :128].all()
    assert not mask[:, 128:].any()


def test_a_picture_alone_is_kept_as_such(tmp_path: Path) -> None:
    alone = {"kind": "absolute", "second": None, "second_model": None, "question": "aesthetics"}
    (preference,) = learnable(tmp_path / "tables", [row(0, "a", 0.75, **alone)])
    assert (preference["first"], preference["second"], preference["second_image"], preference["aesthetics"]) == (
        "new-0",
        None,
        None,
        0.75,
    )


def test_every_question_about_a_picture_alone_is_kept(tmp_path: Path) -> None:
    alone = {"kind": "absolute", "second": None, "second_model": None}
    answers = {"defects": (1.0, 0.0), "fidelity": (1.0, 1.0), "aesthetics": (0.25, 0.75)}
    judgments = [
        row(0, rater, value, question=question, **alone)
        for question, values in answers.items()
        for rater, value in zip("ab", values, strict=True)
    ]
    (preference,) = learnable(tmp_path / "tables", judgments)
    assert {question: preference[question] for question in tables.QUESTIONS} == {
        "defects": 0.5, "fidelity": 1.0, "aesthetics": 0.5, "preference": None,
    }  # fmt: skip
    assert preference["judgments"] == 6


@pytest.mark.parametrize("changed", [{"set_aside": "failed"}, {"attention": True}, {"source": "synthetic"}])
def test_what_does_not_count_is_not_learnt(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert learnable(tmp_path / "tables", [row(0, "a", 1.0, **changed)]) == []


def test_the_same_ratings_give_the_same_bytes_and_earlier_ones_stay(tmp_path: Path) -> None:
    judgments = [row(pair, rater, 1.0) for pair in (0, 1) for rater in "ab"]
    preferences = learnable(tmp_path / "a", judgments)
    tables.write_rows(tmp_path / "one", preferences, tables.PREFERENCES)
    tables.write_rows(tmp_path / "two", learnable(tmp_path / "b", judgments[::-1]), tables.PREFERENCES)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    earlier = preferences[0] | {"first": "elder-0"}
    again = [preferences[0] | {"preference": 0.0}, preferences[1]]
    rows = merge_preferences([*tables.read(tmp_path / "one").to_pylist(), earlier], again)
    assert [(one["first"], one["preference"]) for one in rows] == [("elder-0", 1.0), ("new-0", 0.0), ("new-1", 1.0)]


def test_the_committed_pin_is_of_an_empty_table(tmp_path: Path) -> None:
    tables.write_rows(tmp_path / "preferences", [], tables.PREFERENCES)
    assert digest(tmp_path / "preferences") == read_pin("preferences", ROOT)
