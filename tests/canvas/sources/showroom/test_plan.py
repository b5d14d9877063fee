from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import pytest

from canvas.sources.showroom.plan import PinPlan, apportion_total, plan_pins
from canvas.sources.showroom.products import Product
from canvas.sources.showroom.spec import DEFECTS, ShowroomSpec
from lifecycle.declare.params import read_section

SPEC = ShowroomSpec(
    pins=400, on_white=0.1, scene_only=0.1, unseen_product=0.1, unseen_view=0.1, unseen_both=0.05, defective=0.18
)


@pytest.fixture(scope="module")
def plans(products: tuple[Product, ...]) -> list[PinPlan]:
    return plan_pins(SPEC, 0, products)


def test_every_defect_is_planted_equally(plans: list[PinPlan]) -> None:
    defects = Counter(plan.defect for plan in plans)
    assert {defects[defect] for defect in DEFECTS} == {8}
    assert defects[None] == 400 - 8 * len(DEFECTS)


def test_held_out_products_are_never_in_train(plans: list[PinPlan]) -> None:
    for plan in plans:
        if plan.product:
            assert plan.product.held_out == (plan.split in ("unseen_product", "unseen_both"))
            assert plan.cutout in plan.product.cutouts


def test_kinds_and_splits_have_their_shares(plans: list[PinPlan]) -> None:
    kinds, splits = Counter(plan.kind for plan in plans), Counter(plan.split for plan in plans)
    assert (kinds["on_white"], kinds["scene"]) == (pytest.approx(40, abs=4), pytest.approx(40, abs=4))
    assert splits["train"] == pytest.approx(300, abs=12)
    assert min(splits.values()) >= 14
    assert {plan.split for plan in plans if plan.kind == "on_white"} == {"train", "unseen_product"}
    assert {plan.split for plan in plans if plan.kind == "scene"} == {"train", "unseen_view"}


def test_copies_come_after_sound_originals_and_share_their_plan(plans: list[PinPlan]) -> None:
    copies = [plan for plan in plans if plan.copy_of is not None]
    assert len(copies) == 8
    for copy in copies:
        assert copy.copy_of is not None
        original = plans[copy.copy_of]
        assert original.index < copy.index
        assert original.defect is None
        assert replace(copy, index=original.index, defect=None, copy_of=None) == original


def test_the_seed_decides(products: tuple[Product, ...], plans: list[PinPlan]) -> None:
    def drawn(some: list[PinPlan]) -> list[object]:
        return [(plan.kind, plan.split, plan.product and plan.product.product_id, plan.defect) for plan in some]

    assert drawn(plan_pins(SPEC, 0, products)) == drawn(plans)
    assert drawn(plan_pins(SPEC, 1, products)) != drawn(plans)


def test_apportioned_parts_add_up() -> None:
    assert apportion_total(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert apportion_total(7, {"a": 0.5, "b": 0.0, "c": 0.5}) == {"a": 4, "b": 0, "c": 3}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pins": 20}, "pins is 20: at least 36"),
        ({"defective": 0.7}, r"'defective' in section 'showroom' is 0\.7: it must be at most 0\.5"),
        ({"on_white": -0.1}, r"'on_white' in section 'showroom' is -0\.1: it must be 0 or more"),
        ({"on_white": 0.3, "scene_only": 0.3}, "at most 0.5"),
    ],
)
def test_bad_specs_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_section(ShowroomSpec, "showroom", {"showroom": asdict(SPEC) | changes})
