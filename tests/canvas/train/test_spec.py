from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.canvas.train.subject import SPEC


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accumulate": 3}, "batch_size is 8: it must be a multiple of accumulate, which is 3"),
        ({"ema": (0.05, 0.05)}, r"ema is \[0\.05, 0\.05\]"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **values)


@pytest.mark.parametrize("values", [{"ema": (0.01, 0.28)}, {"accumulate": 8}])
def test_the_edges_are_accepted(values: dict[str, Any]) -> None:
    replace(SPEC, **values)


def test_what_a_stage_cannot_heed_is_refused() -> None:
    SPEC.refuse(parallel="never", compile="never", accumulate="never")
    with pytest.raises(ValueError, match=r"^accumulate is 2: set it to 1 in train\.override$"):
        replace(SPEC, accumulate=2).refuse(accumulate="set it to 1")
    replace(SPEC, accumulate=2).refuse(compile="set it to false")


def test_only_what_does_not_change_the_maths_may_change() -> None:
    assert (
        replace(SPEC, parallel="fsdp", compile=True, checkpoint_every=1, sample_every=1).get_identity()
        == SPEC.get_identity()
    )
    assert replace(SPEC, learning_rate=0.5).get_identity() != SPEC.get_identity()
