"""Styled images are scored: leaks, agreement, splits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from canvas.pins.products import ProductPin
from canvas.styles.pins import StylePin
from evaluation.generator.leakage import ProductJudge
from evaluation.generator.style_plan import StyleTrial
from evaluation.generator.style_scores import StyleScorer
from evaluation.generator.style_trials import StylePlan, Subject
from evaluation.judges.features import extract_trunk_features
from evaluation.judges.judges import Judges
from tests.evaluation.generator.test_leakage import build_products


class RecordingJudge(ProductJudge):
    """Keeps the views that it is asked about."""

    def recognize_products(self, views, masks):
        self.views = views
        return super().recognize_products(views, masks)


def test_leaks_are_put_where_the_seed_says():
    known = build_products(24, seed=0)
    judge = RecordingJudge.fit(known, seed=0)
    styles = [StylePin("m0", Image.fromarray(known.views[0]), "in a forest", "forest", "Mugs", "a")]
    pin = ProductPin("l1", Image.fromarray(known.views[1]), known.masks[1], "lamp", "c", "Lamps")
    plan = StylePlan([Subject(pin, "forest")], styles, [StyleTrial(0, 0, 1.0, False, 7)])
    copies = []
    for seed in (3, 3, 4):
        scorer = StyleScorer(
            judges=Judges((), None),
            product_judge=judge,
            products=known,
            clip=None,
            real=extract_trunk_features(known.views[:4]),
            side=32,
            seed=seed,
        )
        scorer.score_trials(None, plan, [known.views[1]], {"m0": "train"})
        copies.append(judge.views)
    assert np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[0], copies[2])


def test_scores_hold_split_product_and_leaks():
    """Lamps after images of mugs, one of which leaks."""
    known = build_products(24, seed=0)
    images = [Image.fromarray(view) for view in known.views]
    styles = [
        StylePin("m0", images[0], "in a forest", "forest", "Mugs", "a"),
        StylePin("m2", images[2], "in a lobby", "lobby", "Mugs", "b"),
    ]
    subjects = [
        Subject(ProductPin(f"l{at}", images[at], known.masks[at], "lamp", product, "Lamps"), "forest")
        for at, product in ((1, "c"), (5, None))
    ]
    trials = [StyleTrial(subject, style, 1.0, False, 7) for subject in (0, 1) for style in (0, 1)]
    leaking = known.views[1].copy()
    leaking[known.masks[2]] = known.views[2][known.masks[2]]
    scorer = StyleScorer(
        judges=Judges((), None),
        product_judge=ProductJudge.fit(known, seed=0),
        products=known,
        clip=None,  # without a prompt there is no text to agree with
        real=extract_trunk_features(known.views),
        side=32,
        seed=0,
    )
    generated = [known.views[1], leaking, known.views[5], known.views[5]]
    splits = {"m0": "unseen_view", "m2": "unseen_both"}
    scores, features = scorer.score_trials(None, StylePlan(subjects, styles, trials), generated, splits)
    assert len(features) == 4
    assert [score.leaked for score in scores] == [False, True, False, False]
    assert [score.leak_detected for score in scores].count(True) >= 3
    assert [score.product for score in scores] == ["c", "c", "l5", "l5"]
    assert [score.style_split for score in scores] == ["unseen_view", "unseen_both"] * 2
    assert {score.seed for score in scores} == {7}
    assert {score.core_difference for score in scores} == {0}
    assert [score.scene_agreement for score in scores] == [None] * 4
    assert scores[2].style_agreement == pytest.approx(scores[3].other_agreement)
