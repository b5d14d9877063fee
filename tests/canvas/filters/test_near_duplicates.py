from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from canvas.filters import near_duplicates
from canvas.filters.near_duplicates import (
    FEATURE_DIM,
    HASH_BITS,
    DuplicateLimits,
    ImageFeatureScorer,
    compute_perceptual_hash,
    find_close_pairs,
    select_originals,
)
from canvas.pins.images import encode_jpeg
from lifecycle.declare.params import read_section
from tests.canvas.filters.test_quality import noise


def distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_pairs_are_those_of_the_definition_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    hashes = [np.random.default_rng(seed).bytes(HASH_BITS // 8).hex() for seed in range(40)]
    hashes += hashes[3:9]
    for limit in (0, 130, 140):
        expected = [[i, j] for i in range(46) for j in range(i) if distance(hashes[i], hashes[j]) <= limit]
        assert find_close_pairs(hashes, limit).tolist() == expected
        assert len(expected) >= 6


@pytest.mark.parametrize("hashes", [[], ["0" * 72]])
def test_fewer_than_two_pins_have_no_pairs(hashes: list[str]) -> None:
    assert find_close_pairs(hashes, 10).shape == (0, 2)


def test_the_hash_survives_a_small_crop_and_brightening_but_not_another_picture() -> None:
    picture = noise(48, 36).resize((200, 150))
    copy = ImageEnhance.Brightness(picture.crop((3, 3, 197, 147))).enhance(1.05).resize((180, 140))
    assert distance(compute_perceptual_hash(picture), compute_perceptual_hash(copy)) <= 50
    assert distance(compute_perceptual_hash(picture), compute_perceptual_hash(noise(200, 150, seed=1))) > 100


def pairs(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def test_the_first_of_a_group_stays() -> None:
    assert select_originals(pairs((1, 0), (2, 0), (2, 1)), [0.95, 0.91, 0.99], 0.9) == {1: 0, 2: 0}


def test_a_chain_of_small_changes_does_not_drop_what_is_far_from_every_kept_pin() -> None:
    assert select_originals(pairs((1, 0), (2, 1)), [0.95, 0.95], 0.9) == {1: 0}


def test_the_most_similar_original_is_named_and_the_first_of_equals() -> None:
    assert select_originals(pairs((2, 0), (2, 1)), [0.92, 0.97], 0.9) == {2: 1}
    assert select_originals(pairs((2, 0), (2, 1)), [0.95, 0.95], 0.9) == {2: 0}


def test_the_threshold_itself_is_a_duplicate_and_less_is_not() -> None:
    assert select_originals(pairs((1, 0), (3, 2)), [0.9, 0.89], 0.9) == {1: 0}


@pytest.mark.parametrize("bits", [-1, 144, 288])
def test_a_hash_distance_that_means_nothing_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"'max_hash_distance' in section 'duplicates' is {bits}: it must be"):
        read_section(DuplicateLimits, "duplicates", {"duplicates": {"max_hash_distance": bits, "min_similarity": 0.9}})


def test_features_are_unit_vectors_that_know_a_copy() -> None:
    picture = noise(200, 150)
    copy = picture.crop((4, 4, 196, 146)).resize((170, 130), Image.Resampling.LANCZOS)
    rows = ImageFeatureScorer()([encode_jpeg(image) for image in (picture, copy, Image.new("RGB", (90, 90), "red"))])
    vectors = np.array([row["features"] for row in rows])
    assert vectors.shape == (3, FEATURE_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.85 > vectors[0] @ vectors[2]
