from __future__ import annotations

import numpy as np
import pytest

from canvas.styles.centres import StyleCentres
from canvas.styles.table import Style


def style(number: int, uve: list[float], clip: list[float], kind: str = "cluster", dropped: str | None = None) -> Style:
    vectors = {"uve": np.array(uve, np.float32), "clip": np.array(clip, np.float32)}
    known = {"purity": 1.0, "coherence": 1.0, "chance": None, "pins": ("p0",)}
    return Style(style_id=f"{kind}-{number}", kind=kind, name=str(number), dropped=dropped, **vectors, **known)


@pytest.fixture
def centres() -> StyleCentres:
    """Two clusters; beside them a board and a dropped cluster, which are nearer to everything."""
    near = [0.6, 0.8]
    made = StyleCentres.from_styles(
        [
            style(0, [1.0, 0.0], [0.0, 1.0]),
            style(1, [0.0, 1.0], [1.0, 0.0]),
            style(2, near, near, kind="board"),
            style(3, near, near, dropped="mixed"),
        ]
    )
    assert made is not None
    return made


PARTS = {
    "uve": np.array([[0.8, 0.6], [0.6, 0.8]], np.float32),  # nearest to the first, to the second
    "clip": np.array([[0.8, 0.6], [0.6, 0.8]], np.float32),  # nearest to the second, to the first
}


def test_not_at_all_and_all_the_way(centres: StyleCentres):
    still = centres.pull_to_centres(PARTS, "uve+clip", 0.0)
    for name, part in PARTS.items():
        np.testing.assert_allclose(still[name], part, atol=1e-6)
    there = centres.pull_to_centres(PARTS, "uve+clip", 1.0)
    np.testing.assert_array_equal(there["uve"], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(there["clip"], [[0, 1], [1, 0]])


def test_clip_alone_asks_clip_which_is_nearest(centres: StyleCentres):
    there = centres.pull_to_centres(PARTS, "clip", 1.0)
    np.testing.assert_array_equal(there["clip"], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(there["uve"], [[0, 1], [1, 0]])


def test_half_way_is_of_unit_length_and_between(centres: StyleCentres):
    half = centres.pull_to_centres(PARTS, "uve", 0.5)
    for name in PARTS:
        np.testing.assert_allclose(np.linalg.norm(half[name], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(half["uve"][0] / half["uve"][0, 0], [1, 0.6 / 1.8], atol=1e-6)


def test_they_are_saved_with_a_pipeline_as_its_other_parts(centres: StyleCentres, tmp_path):
    centres.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    again = StyleCentres.from_pretrained(tmp_path)
    np.testing.assert_array_equal(
        again.pull_to_centres(PARTS, "uve", 0.5)["clip"], centres.pull_to_centres(PARTS, "uve", 0.5)["clip"]
    )


def test_without_a_cluster_that_was_kept_there_are_none():
    assert (
        StyleCentres.from_styles([style(0, [1.0], [1.0], kind="board"), style(1, [1.0], [1.0], dropped="small")])
        is None
    )
