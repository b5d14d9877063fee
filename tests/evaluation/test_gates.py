"""Two models that truly differ, and everything that can be missing, stale, forged or not a number."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from canvas.pins import tables
from canvas.pins.tables import EVALUATION, JUDGMENTS
from evaluation.gates import GateParams, Verdict, decide_verdict, drop_certificates, drop_rewards, run_gate
from lifecycle.declare.params import read_section

NEW, OLD, OLDER = "new" * 10, "old" * 10, "older" * 6
GATE = GateParams(
    ceilings={"challenger.core_max_abs_diff_worst": 0, "drift.share": 0.75},
    floors={"challenger.reward_overall": 0.3},
    guarded=("reward_overall", "extension", "core_max_abs_diff"),
    slices=("scene", "category"),
    min_items=5,
    false_alarms=0.05,
    min_win_rate=0.5,
    min_judgments=40,
    min_raters=2,
)
FIGURES = {"challenger": {"core_max_abs_diff_worst": 0, "reward_overall": 0.5}, "drift": {"share": 0.25}}
SCENES = ("forest", "lobby", "desert at dawn")


def painted(model: str, digest: str, shift: float = 0.0, worse_in: str = "", items: int = 40) -> list[dict[str, Any]]:
    """Two pictures of each item: reward about 0.5 + shift, in one scene 0.3 less; extension the other way."""
    common = np.random.default_rng(0).normal(0, 0.1, items)
    own = np.random.default_rng(list(digest.encode())).normal(0, 0.02, (items, 2))
    return [
        dict.fromkeys(EVALUATION.names)
        | {
            "candidate_id": f"{model}{item}{seed}",
            "item_id": f"i{item:02d}",
            "category": "Shoes" if item % 2 else "Mugs",
            "scene": (scene := SCENES[item % 3]),
            "seed": seed,
            "model": model,
            "digest": digest,
            "reward_overall": (reward := 0.5 + common[item] + own[item, seed] + shift - 0.3 * (scene == worse_in)),
            "extension": 1 - reward,
            "core_max_abs_diff": 0.0,
        }
        for item in range(items)
        for seed in range(2)
    ]


def make_judgments(
    model: str, against: str | None, won: float, pairs: int = 40, **changes: Any
) -> list[dict[str, Any]]:
    """What two raters say of pairs, of which `model` wins a share of `won`."""
    return [
        dict.fromkeys(JUDGMENTS.names)
        | {
            "judgment_id": f"j{model}{pair}{rater}",
            "item_id": f"i{pair}",
            "rater": rater,
            "kind": "pairwise",
            "question": "preference",
            "value": float(pair < won * pairs) if pair % 2 else float(pair >= won * pairs),
            "first": f"a{pair}",
            "second": f"b{pair}",
            "first_model": model if pair % 2 else against,
            "second_model": against if pair % 2 else model,
            "timestamp": datetime(2026, 11, 22, tzinfo=UTC),
            "source": "human",
            "attention": False,
        }
        | changes
        for pair in range(pairs)
        for rater in ("ada", "bob")
    ]


def verdict(
    challenger: list[dict[str, Any]] | None = None,
    champion: list[dict[str, Any]] | None = None,
    judgments: list[dict[str, Any]] | None = None,
    figures: dict[str, Any] | None = None,
    gate: GateParams = GATE,
    against: str | None = OLD,
) -> Verdict:
    """Verdict on a better challenger that people like, but for what is given."""
    return decide_verdict(
        gate,
        NEW,
        against,
        rows=[
            *(painted("challenger", NEW, 0.05) if challenger is None else challenger),
            *(painted("champion", OLD) if champion is None else champion),
        ],
        metrics=FIGURES if figures is None else figures,
        judgments=make_judgments(NEW, against, 0.8) if judgments is None else judgments,
    )


def test_without_a_reward_model_nobody_asks_for_rewards() -> None:
    gate, notes = drop_rewards(replace(GATE, floors={"challenger.reward_overall": 0.5, "challenger.agreement": None}))
    assert (gate.floors, gate.ceilings) == ({"challenger.agreement": None}, GATE.ceilings)
    assert set(GATE.guarded) - set(gate.guarded) == {"reward_overall"}
    assert notes == ["there is no reward model: challenger.reward_overall, reward_overall are not asked for"]
    assert drop_rewards(gate) == (gate, [])


CERTIFIED = replace(GATE, ceilings={**GATE.ceilings, "challenger.certificates_failed": 0.0})


def test_without_mode_soft_nobody_asks_for_certificates() -> None:
    assert drop_certificates(CERTIFIED) == GATE
    assert drop_certificates(GATE) == GATE
    assert drop_certificates(replace(GATE, guarded=("extension", "certificates_failed"))).guarded == ("extension",)


@pytest.mark.parametrize(
    ("figures", "outcome", "reason"),
    [
        ({"certificates_failed": 0.0}, "pass", "people prefer it to the champion"),
        (
            {"certificates_failed": 1 / 12},
            "fail",
            "Certificates failed (challenger.certificates_failed) is 0.08333: it must be at most 0",
        ),
        (
            {"certificates_failed": float("nan")},
            "fail",
            "Certificates failed (challenger.certificates_failed) is nan: it must be at most 0",
        ),
        (
            {},
            "fail",
            "Certificates failed (challenger.certificates_failed) was not measured: it must be at most 0",
        ),
    ],
)
def test_one_certificate_that_fails_refuses_the_model(figures: dict[str, Any], outcome: str, reason: str) -> None:
    decision = verdict(figures=FIGURES | {"challenger": FIGURES["challenger"] | figures}, gate=CERTIFIED)
    assert decision.outcome == outcome
    assert decision.reasons[0].startswith(reason)


def test_win() -> None:
    decision = verdict()
    assert decision.outcome == "pass"
    assert decision.reasons[0].startswith("people prefer it to the champion in 0.8")
    # three measures over all, in three scenes and in two categories
    assert decision.reasons[1] == "no loss against the champion beyond chance in 18 comparisons"


def test_measured_loss_fails_whatever_people_say() -> None:
    decision = verdict(challenger=painted("challenger", NEW, -0.05))
    assert decision.outcome == "fail"
    assert any(reason.startswith("worse than the champion: reward_overall, 0.") for reason in decision.reasons)
    assert any(reason.startswith("worse than the champion: extension,") for reason in decision.reasons)


def test_a_slice_that_lost_fails_though_the_mean_won() -> None:
    decision = verdict(challenger=painted("challenger", NEW, 0.2, worse_in="desert at dawn"))
    assert decision.outcome == "fail"
    assert {reason.partition(" before")[0].rpartition(", ")[0] for reason in decision.reasons} == {
        "worse than the champion: reward_overall, desert at dawn",
        "worse than the champion: extension, desert at dawn",
    }


def test_people_who_prefer_the_champion_fail_it() -> None:
    decision = verdict(judgments=make_judgments(NEW, OLD, 0.2))
    assert decision.outcome == "fail"
    assert "the interval must lie above 0.5" in decision.reasons[0]


def test_tie_is_no_win() -> None:
    decision = verdict(
        challenger=[{**row, "model": "challenger", "digest": NEW} for row in painted("champion", OLD)],
        judgments=make_judgments(NEW, OLD, 0.5),
    )
    assert decision.outcome == "fail"
    assert len(decision.reasons) == 2
    assert decision.reasons[0].startswith("people prefer it to the champion in 0.5")


@pytest.mark.parametrize("question", ["defects", "fidelity"])
def test_only_preferences_count(question: str) -> None:
    assert verdict(judgments=make_judgments(NEW, OLD, 0.9, question=question)).outcome == "pending"


def test_scenes_are_set_aside_only_where_nobody_knows_any() -> None:
    floors = {"challenger.scene_right": 0.3, "judge.scene_accuracy_real": 0.6, "challenger.reward_overall": 0.3}
    asks = replace(GATE, floors=floors, guarded=(*GATE.guarded, "scene_right"))
    nameless = [{**row, "scene": None} for row in painted("challenger", NEW, 0.05)]
    decision = verdict(nameless, gate=asks)
    assert decision.outcome == "pass"
    assert decision.reasons[-1] == (
        "no truth is known of any pin, so nothing was asked of challenger.scene_right, judge.scene_accuracy_real, "
        "scene_right"
    )
    assert verdict(nameless, figures=FIGURES | {"judge": {"scene_accuracy_real": 0.9}}, gate=asks).outcome == "fail"
    assert verdict(gate=asks).outcome == "fail"
    poor = {**FIGURES, "challenger": {"core_max_abs_diff_worst": 0, "reward_overall": 0.1}}
    assert verdict(nameless, figures=poor, gate=asks).outcome == "fail"


def test_no_champion_yet() -> None:
    decision = verdict(champion=[], judgments=make_judgments(NEW, None, 0.9), against=None)
    assert decision.outcome == "pass"
    assert decision.reasons[0].startswith("people prefer it to pasted products")
    assert "there is no champion yet" in decision.reasons[1]
    assert verdict(champion=[], judgments=[], against=None).outcome == "pending"
    assert verdict(champion=[], judgments=make_judgments(NEW, None, 0.2), against=None).outcome == "fail"


def test_equal_models_with_noise_are_not_refused() -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 0.05, 80)
        rows = [
            row | {"reward_overall": row["reward_overall"] + more}
            for row, more in zip(painted("challenger", NEW), noise, strict=True)
        ]
        assert verdict(challenger=rows).outcome == "pass"


def test_what_looks_worse_by_chance_is_named_but_does_not_fail() -> None:
    """A lone slice that is worse by a little: its interval leaves zero, the family of all comparisons does not."""
    rng, rows = np.random.default_rng(3), painted("challenger", NEW, 0.0)
    for row in rows:
        row["extension"] = 0.5
        if row["scene"] == "lobby":
            row["reward_overall"] += rng.normal(-0.025, 0.04)
    old = [{**row, "extension": 0.5} for row in painted("champion", OLD)]
    decision = verdict(challenger=rows, champion=old)
    assert decision.outcome == "pass"
    assert any(
        reason.startswith("looks worse, which may be chance among so many: reward_overall, lobby")
        for reason in decision.reasons
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_measure_that_is_no_number(value: float) -> None:
    rows = painted("challenger", NEW, 0.05)
    rows[3]["reward_overall"] = value
    decision = verdict(challenger=rows)
    assert decision == Verdict("fail", ("reward_overall is not a number in 1 of 80 images",), NEW, OLD)


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        ("challenger", "extension was not measured: it is guarded"),
        ("champion", "extension was not measured on the champion's images: it is guarded"),
    ],
)
@pytest.mark.parametrize("missing", [True, False])
def test_missing_measure(side: str, reason: str, missing: bool) -> None:
    rows = painted(side, NEW if side == "challenger" else OLD, 0.0)
    for row in rows:
        row["extension"] = None
        if missing:
            del row["extension"]
    decision = verdict(**{side: rows})
    assert decision.outcome == "fail"
    assert reason in decision.reasons


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (
            {"core_max_abs_diff_worst": 1},
            "Core difference (challenger.core_max_abs_diff_worst) is 1: it must be at most 0",
        ),
        (
            {"core_max_abs_diff_worst": float("nan")},
            "Core difference (challenger.core_max_abs_diff_worst) is nan: it must be at most 0",
        ),
        (
            {"core_max_abs_diff_worst": None},
            "Core difference (challenger.core_max_abs_diff_worst) was not measured: it must be at most 0",
        ),
        ({"reward_overall": 0.2}, "challenger.reward_overall is 0.2: it must be at least 0.3"),
        ({"reward_overall": float("nan")}, "challenger.reward_overall is nan: it must be at least 0.3"),
    ],
)
def test_limits(figures: dict[str, Any], reason: str) -> None:
    decision = verdict(figures=FIGURES | {"challenger": FIGURES["challenger"] | figures})
    assert decision == Verdict("fail", (reason,), NEW, OLD)


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"drift": {"share": 1.0}}, "drift.share is 1: it must be at most 0.75"),
        ({"drift": {}}, "drift.share was not measured: it must be at most 0.75"),
        ({"drift": 3.0}, "drift.share was not measured: it must be at most 0.75"),
    ],
)
def test_drift_is_a_limit(figures: dict[str, Any], reason: str) -> None:
    assert verdict(figures=FIGURES | figures) == Verdict("fail", (reason,), NEW, OLD)


def test_own_judges_are_named_unless_references_stand_in() -> None:
    for segmenter in (0, 1):
        frozen = {"segmenter": segmenter, "text_image": 1}
        reasons = verdict(figures=FIGURES | {"instruments": {"frozen": frozen}}).reasons
        assert any("by the challenger's own segmenter" in reason for reason in reasons) == (segmenter == 0)
        assert not any("text-image encoder" in reason for reason in reasons)


def test_limits_hold_before_there_is_a_champion() -> None:
    decision = verdict(champion=[], judgments=make_judgments(NEW, None, 0.9), figures={}, against=None)
    assert decision.outcome == "fail"
    assert len(decision.reasons) == 3


def test_evaluation_of_another_model() -> None:
    decision = verdict(challenger=painted("challenger", OLDER, 0.05))
    assert decision.outcome == "fail"
    assert "the evaluation holds no image of this model: evaluate it again" in decision.reasons


@pytest.mark.parametrize("champion", [[], painted("champion", OLD, items=4), painted("champion", OLDER)])
def test_champion_that_painted_other_items(champion: list[dict[str, Any]]) -> None:
    decision = verdict(champion=champion)
    assert decision.outcome == "fail"
    assert "of these items, 5 are needed to compare" in decision.reasons[0]


@pytest.mark.parametrize(
    ("judgments", "reason"),
    [
        ([], "0 of 40 ratings against the champion by 0 of 2 raters"),
        (make_judgments(NEW, OLD, 0.9, pairs=10), "20 of 40 ratings against the champion by 2 of 2 raters"),
        (
            make_judgments(NEW, OLD, 0.9, rater="ada"),  # twice about each pair
            "0 of 40 ratings against the champion by 1 of 2 raters; 40 wait for another rater of the pair",
        ),
        (make_judgments(NEW, OLD, 0.9, source="synthetic"), "0 of 40 ratings against the champion by 0 of 2 raters"),
        (make_judgments(NEW, OLD, 0.9, set_aside="failed 3 of 5 attention checks"), "0 of 40 ratings"),
        (make_judgments(NEW, OLD, 0.9, attention=True), "0 of 40 ratings"),
        (make_judgments(NEW, OLD, 0.9, value=float("nan")), "0 of 40 ratings"),
        (make_judgments(NEW, OLD, 0.9, value=None), "0 of 40 ratings"),
        (make_judgments(NEW, OLD, 0.9, value=7.0), "0 of 40 ratings"),
        (make_judgments(NEW, OLD, 0.9, pairs=5) * 20, "10 of 40 ratings"),  # one judgment many times is one judgment
        (make_judgments(NEW, None, 0.9), "0 of 40 ratings against the champion by 0 of 2 raters"),
        (make_judgments(OLDER, OLD, 0.9), "80 more are about other versions and do not count"),
        (make_judgments(NEW, OLDER, 0.9), "0 of 40 ratings against the champion by 0 of 2 raters"),
    ],
)
def test_ratings_that_do_not_suffice(judgments: list[dict[str, Any]], reason: str) -> None:
    decision = verdict(judgments=judgments)
    assert decision.outcome == "pending"
    assert reason in decision.reasons[0]


def test_what_does_not_count_does_not_sway() -> None:
    others = [
        *make_judgments(NEW, OLD, 0.0, pairs=500, source="synthetic"),
        *make_judgments(OLDER, OLD, 0.0, pairs=500),
        *[
            row | {"judgment_id": "x" + row["judgment_id"], "set_aside": "cheated"}
            for row in make_judgments(NEW, OLD, 0.0)
        ],
    ]
    clean = verdict()
    assert verdict(judgments=[*make_judgments(NEW, OLD, 0.8), *others]) == clean


def test_files(tmp_path: Path) -> None:
    rows = [*painted("challenger", NEW, 0.05), *painted("champion", OLD)]
    tables.write(tmp_path / "evaluation", [pa.Table.from_pylist(rows, EVALUATION)], EVALUATION)
    tables.write(tmp_path / "ratings", [pa.Table.from_pylist(make_judgments(NEW, OLD, 0.8), JUDGMENTS)], JUDGMENTS)
    (tmp_path / "evaluation.json").write_text(json.dumps(FIGURES))
    (tmp_path / "champion").mkdir()
    facts = tmp_path / "champion" / "champion.json"
    names = {"model": "model", "evaluation": "evaluation", "metrics": "evaluation.json"}
    places = {name: tmp_path / file for name, file in (names | {"champion": "champion", "ratings": "ratings"}).items()}
    facts.write_text(json.dumps({"version": "3", "digest": OLD}))
    decision = run_gate(GATE, NEW, **places)
    assert (decision.champion, decision.outcome) == (OLD, "pass")
    facts.write_text('{"version": null}')
    decision = run_gate(GATE, NEW, **places)
    assert (decision.champion, decision.outcome) == (None, "pending")
    figures = {"gold_gain": 0.05, "gold_gain_low": 0.01, "gold_gain_high": 0.09, "judged_images": 640}
    figures |= {"kid_engaged_change": -0.002, "diversity_ratio": 1.01}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "alignment.json").write_text(json.dumps({"figures": figures}))
    aligned = run_gate(GATE, NEW, **places)
    assert aligned.reasons[:-1] == decision.reasons
    assert aligned.reasons[-1] == (
        "aligned against unaligned, on 640 held-out images each: gold +0.050 [+0.010, +0.090], KID -0.0020, diversity "
        "1.01 of it"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guarded": []}, "'guarded' in section 'gate' is .*: give 1 or more"),
        ({"false_alarms": 0.0}, "it must be above 0"),
        ({"min_win_rate": 1.0}, "it must be below 1"),
    ],
)
def test_params_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_section(GateParams, "gate", {"gate": asdict(GATE) | changes})
