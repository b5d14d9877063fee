"""The review page says what was measured, the verdict first, and fetches nothing."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.generator.comparison import Delta, Side
from evaluation.metrics import CANDIDATE_MEASURES
from evaluation.pages.review import ModelOrigin, ReviewPage, render_review_page
from evaluation.ratings.summary import QuestionSummary, RatingSummary, RewardAgreement
from evaluation.statistics.intervals import Interval


def png(colour: tuple[int, int, int], side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(file, "png")
    return file.getvalue()


def delta(name: str, low: float, high: float, higher: bool = True) -> Delta:
    middle = (low + high) / 2
    return Delta(
        name=name,
        champion=0.6,
        challenger=0.6 + middle,
        difference=Interval(middle, low, high),
        higher_is_better=higher,
        guarded=name == "scene_right",
    )


def review() -> ReviewPage:
    params = {"train_base.steps": "1200", "train_base.train.learning_rate": "0.0004", "frames.side": "64"}
    champion = ModelOrigin(
        digest="1" * 32 + ".dir",
        artifacts={"data": "a" * 32 + ".dir", "artifacts/pins": "b" * 32, "models/base": "c" * 32},
        params=params,
        runs={"models/base": "http://127.0.0.1:5000/#/experiments/1/runs/1"},
    )
    challenger = replace(
        champion,
        digest="2" * 32 + ".dir",
        artifacts={**champion.artifacts, "artifacts/pins": "e" * 32, "models/base": "d" * 32},
        params={**params, "train_base.steps": "2400"},
        tree=("models/canvas  2222  assemble  run 5", "└─ models/base <&>"),
    )
    return ReviewPage(
        outcome="fail",
        reasons=("scene_right is worse by 0.12 [-0.20, -0.04]", "wins 41 % of 60 pairs"),
        figures={"scene_right": 0.62, "core_max_abs_diff": 0},
        sides=[
            Side(
                prompt=f"in a {place}", category="Shoes & <socks>", champion=png((40, 90, 160)), challenger=png(colour)
            )
            for place, colour in (("forest", (60, 120, 60)), ("lobby", (150, 120, 90)), ("desert", (200, 160, 90)))
        ],
        left="champion",
        deltas=[
            delta("scene_right", -0.2, -0.04),
            delta("seam_ratio", -0.3, -0.1, False),
            delta("agreement", -0.1, 0.2),
        ],
        slices=[delta("scene_right: desert", -0.4, -0.1), delta("scene_right: lobby", -0.1, 0.1)],
        human=RatingSummary(
            win_rate=Interval(0.41, 0.3, 0.52),
            against="the champion",
            judgments=120,
            raters=3,
            agreement=RewardAgreement(
                reward=Interval(0.7, 0.6, 0.8), pair=Interval(0.9, 0.8, 1.0), alpha=Interval(0.44, 0.3, 0.6)
            ),
            consistency=0.83,
            set_aside={"failed 2 of 3 attention checks": 40},
            strengths={"challenger": Interval(-0.2, -0.4, 0.0), "champion": Interval(0.2, 0.0, 0.4)},
            questions=[
                QuestionSummary(
                    question="defects",
                    wins=None,
                    challenger=Interval(0.84, 0.7, 0.9),
                    opponent=Interval(0.5, 0.4, 0.6),
                    alpha=None,
                    reward_in_pairs=None,
                    reward_alone=Interval(0.75, 0.6, 0.9),
                )
            ],
        ),
        alignment=None,
        champion_version="3",
        champion=champion,
        challenger=challenger,
    )


def headings(html: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", html)


def test_the_verdict_comes_first_and_nothing_is_fetched() -> None:
    html = render_review_page(review())
    assert html.index("Fail. Challenger 2222222222 against champion version 3") < html.index("<img")
    assert html.index("scene_right is worse by 0.12") < html.index("<img")
    assert headings(html) == [
        "Side by side", "Measures", "Slices that moved", "What people say", "What changed", "Where it comes from",
    ]  # fmt: skip
    assert "<script" not in html
    assert set(re.findall(r'src="(.{22})', html)) == {"data:image/png;base64,"}
    assert html.count("<img") == 6
    assert not re.search(r"<link|@import|url\(", html)
    assert re.findall(r'href="(.*?)"', html) == ["http://127.0.0.1:5000/#/experiments/1/runs/1"]
    assert "Shoes &amp; &lt;socks&gt;, in a forest" in html
    assert "models/base &lt;&amp;&gt;" in html


def test_an_alignment_is_shown_before_and_after() -> None:
    html = render_review_page(replace(review(), alignment=png((10, 20, 30))))
    assert headings(html)[:3] == ["Side by side", "The alignment with rewards", "Measures"]
    assert html.count("<img") == 7


def test_measures_are_named_and_explained_as_everywhere() -> None:
    html = render_review_page(review())
    measure = CANDIDATE_MEASURES["scene_right"]
    assert f"<dt>{measure.title}</dt><dd>0.62</dd>" in html
    assert f"<td>{measure.meaning}</td>" in html


def test_directions_are_those_of_the_measure() -> None:
    html = render_review_page(review())
    assert "-0.12 [-0.2, -0.04], worse" in html
    assert "-0.2 [-0.3, -0.1], better" in html
    assert "+0.05 [-0.1, +0.2], same" in html
    moved = html[html.index("Slices that moved") : html.index("What people say")]
    assert "desert" in moved
    assert "lobby" not in moved


def test_the_reward_model_stands_beside_the_raters() -> None:
    page = review()
    sentence = "The reward model prefers what people prefer in 0.70 [0.60, 0.80] of cases; "
    assert f"{sentence}two raters choose the same in 0.90 [0.80, 1.00] of pairs." in render_review_page(page)
    alone = replace(page.human, agreement=replace(page.human.agreement, pair=None))
    assert f"{sentence}no pair has two raters." in render_review_page(replace(page, human=alone))
    unknown = replace(page.human, agreement=RewardAgreement(reward=None, pair=None, alpha=None))
    assert "The reward model prefers" not in render_review_page(replace(page, human=unknown))


def test_what_people_say_is_listed_question_by_question() -> None:
    html = render_review_page(review())
    table = html[html.index("Question by question") : html.index("Alone: the mean of what people say")]
    assert "<td>defects</td>" in table
    assert table.index("0.84 [0.70, 0.90]") < table.index("0.50 [0.40, 0.60]") < table.index("0.75 [0.60, 0.90]")
    nobody = replace(review(), human=replace(review().human, questions=[]))
    assert "Question by question" not in render_review_page(nobody)


def test_only_what_changed_is_listed() -> None:
    html = render_review_page(review())
    changed = html[html.index("What changed") : html.index("Where it comes from")]
    assert "train_base.steps" in changed
    assert "learning_rate" not in changed
    assert "artifacts/pins" in changed
    assert ">data<" not in changed


def test_before_there_is_a_champion_and_before_anybody_rated() -> None:
    first = replace(
        review(),
        outcome="pending",
        left="product pasted on another image",
        champion=None,
        champion_version=None,
        deltas=[replace(review().deltas[0], champion=None, difference=None)],
        slices=(),
        human=RatingSummary(
            win_rate=None,
            against="pasting",
            judgments=0,
            raters=0,
            agreement=RewardAgreement(reward=None, pair=None, alpha=None),
            consistency=None,
            set_aside={},
            strengths={},
            questions=[],
        ),
    )
    html = render_review_page(first)
    assert "Pending. Challenger 2222222222; there is no champion yet." in html
    assert "Too few people have compared it with pasting yet" in html
    assert "There is no champion to compare with." in html
    with pytest.raises(ValueError, match="a page shows PNG images"):
        render_review_page(replace(first, sides=[replace(first.sides[0], challenger=b"JPEG")]))
