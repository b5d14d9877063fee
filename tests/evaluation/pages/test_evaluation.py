from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from evaluation.generator.comparison import Delta
from evaluation.metrics import CANDIDATE_MEASURES
from evaluation.pages.evaluation import EvaluationPage, render_evaluation_page
from evaluation.statistics.intervals import Interval

FIGURES = {"pictures": 240, "items": 120, "scene_right": 0.61, "scene_right_low": 0.5, "scene_right_high": 0.7}
RIGHT = {"pairs": 400, "overall_accuracy": 0.97, "overall_accuracy_low": 0.96, "overall_accuracy_high": 0.98}
SETS = {"fid": 90.0, "fid_error": 3.0, "kid": 0.03, "kid_error": 0.004, "cmmd": 1.2, "cmmd_error": 0.1, "vendi": 9.0}


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "png")
    return file.getvalue()


def delta(name: str, mean: float) -> Delta:
    return Delta(
        name=name,
        champion=0.5,
        challenger=0.5 + mean,
        difference=Interval(mean, mean - 0.01, mean + 0.01),
        higher_is_better=True,
        guarded=True,
        loss_by_chance=0.01,
    )


def render(**changes: Any) -> str:
    given: dict[str, Any] = {
        "models": {"challenger": FIGURES | SETS, "paste": FIGURES},
        "slices": {"scene": {"forest": FIGURES}},
        "deltas": [],
        "instruments": {"reward": RIGHT, "segmenter": {}, "frozen": {"segmenter": 0, "text_image": 1}},
        "drift": {"share": 0.25, "drifted": 1, "columns": 4, "distance": {"sharpness": 0.8}},
        "worst": png(),
        "worst_by": "reward_overall",
    }
    return render_evaluation_page(EvaluationPage(**given | changes))


def test_without_a_champion() -> None:
    page = render()
    assert "240 images of 120 items; there is no champion to compare with." in page
    assert "0.61 [0.5, 0.7]" in page
    assert "90 \N{PLUS-MINUS SIGN} 3" in page
    assert 'href="drift.html"' in page
    assert "1 of 4 statistics" in page
    assert "overall_accuracy" in page
    assert "0.97 [0.96, 0.98]" in page
    assert "extension and erosion of both sides are by the challenger&#x27;s own segmenter" in page
    assert "by the challenger&#x27;s own text-image encoder" not in page


def test_slices_that_got_worse_are_named_though_the_mean_got_better() -> None:
    page = render(deltas=[delta("scene_right", 0.1), delta("scene_right, forest", -0.3)])
    assert f"0 of {len(CANDIDATE_MEASURES)} measures got worse, and 1 in slices" in page
    worse = page[page.index("What got worse") : page.index('id="slices"')]
    assert "scene_right, forest" in worse
    assert "<td>scene_right</td>" not in worse


@pytest.mark.parametrize("name", ["http://", "<script"])
def test_self_contained(name: str) -> None:
    assert name not in render(deltas=[delta("scene_right", -0.1)])
