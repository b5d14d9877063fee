"""The suite of expectations of every table: an entry in `SUITES` gives a table its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from great_expectations import expectations as gxe
from great_expectations.expectations import Expectation

from canvas.pins import tables
from evaluation.tables.spec import Limits

CAPTION_SOURCES = ("title", "description", "alt", "generated")


def pins_suite(limits: Limits) -> list[Expectation]:
    readable = 1 - limits.max_broken
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=limits.min_pins, severity="critical"),
        *_key_expectations(),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name, severity="critical") for name in ("image_bytes", "split")),
        gxe.ExpectColumnValuesToBeBetween(column="image_bytes", min_value=1, mostly=readable, severity="warning"),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(tables.SPLITS), severity="critical"),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, severity="critical")
            for name in ("impressions", "saves", "clicks")
        ),
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="impressions", column_B=name, or_equal=True, severity="critical"
            )
            for name in ("saves", "clicks")
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=1, mostly=readable, severity="warning")
            for name in ("width", "height")
        ),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="title", min_value=1, max_value=500, mostly=1 - limits.max_untitled, severity="warning"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="uncategorised", value_set=[False], severity="warning"),
    ]


def kept_suite(limits: Limits) -> list[Expectation]:
    return [
        *_key_expectations(),
        gxe.ExpectColumnValuesToNotBeNull(column="kept", severity="critical"),
        gxe.ExpectColumnDistinctValuesToContainSet(column="kept", value_set=[True], severity="critical"),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1, severity="critical")
            for name in ("brightness", "clipped", "nsfw")
        ),
    ]


def masks_suite(limits: Limits) -> list[Expectation]:
    return [
        *_key_expectations(),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=1, severity="critical")
            for name in ("mask_bytes", "alpha_bytes")
        ),
        gxe.ExpectColumnValuesToBeBetween(column="confidence", min_value=0, max_value=1, severity="critical"),
        gxe.ExpectColumnValuesToBeNull(column="rejected", mostly=1 - limits.max_rejected_masks, severity="warning"),
    ]


def captions_suite(limits: Limits) -> list[Expectation]:
    return [
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["pin_id", "source"], severity="critical"),
        *_completeness_expectations(),
        gxe.ExpectColumnValuesToBeInSet(column="source", value_set=list(CAPTION_SOURCES), severity="critical"),
        gxe.ExpectColumnValuesToNotBeNull(column="caption", severity="critical"),
        gxe.ExpectColumnValueLengthsToBeBetween(column="caption", min_value=1, severity="critical"),
        gxe.ExpectColumnValueLengthsToBeBetween(column="caption", max_value=2_000, mostly=0.99, severity="warning"),
    ]


def _key_expectations() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="pin_id", severity="critical"),
        gxe.ExpectColumnValuesToBeUnique(column="pin_id", severity="critical"),
        *_completeness_expectations(),
    ]


def _completeness_expectations() -> list[Expectation]:
    """Expect rows of all pins that should have some, and of no others."""
    return [
        gxe.ExpectColumnValuesToBeInSet(column="known", value_set=[True], severity="critical"),
        gxe.ExpectColumnValuesToBeInSet(column="present", value_set=[True], severity="critical"),
    ]


SUITES: Mapping[str, Callable[[Limits], list[Expectation]]] = {
    "pins": pins_suite,
    "kept": kept_suite,
    "masks": masks_suite,
    "captions": captions_suite,
}
