"""The suite of expectations of every table, their check by Great Expectations, and a page of the results.

Pixels are never loaded: suites see their byte counts.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from great_expectations import expectations as gxe
from great_expectations.expectations import Expectation

from canvas.pins import tables
from evaluation.pages import html as pages
from evaluation.tables.spec import Limits

Severity = Literal["critical", "warning"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STAMP = re.compile(r"(\?d=|>ge_load_time<.{1,400}?>)\d{8}T\d{6}\.\d+Z", re.DOTALL)
"""The time of writing, which Great Expectations appends to its logo's address and shows of a table."""
DRAWN = re.compile(r"(-collapse-body)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A part of a page has a name of its own already, and gets a random one as well."""

CAPTION_SOURCES = ("title", "description", "alt", "generated")

SAMPLES = 5  # pin ids that a failed check names


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation of one table, and its result."""

    table: str
    expectation: str  # as in "expect_column_values_to_be_unique"
    column: str  # "" for the table as a whole
    severity: Severity
    success: bool
    unexpected: int  # rows
    samples: tuple[str, ...]  # pin ids of unexpected rows
    detail: str

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        pins = f", for example pins {', '.join(self.samples)}" if self.samples else ""
        rows = f" has {self.unexpected} unexpected rows" if self.unexpected else " is not met"
        return f"{where}: {self.expectation}{self.detail}{rows}{pins}"


@dataclass(frozen=True, slots=True)
class Validation:
    """Checks without a critical failure, and their page (HTML)."""

    checks: list[Check]
    page: str


def pins_suite(limits: Limits) -> list[Expectation]:
    readable = 1 - limits.max_broken
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=limits.min_pins, severity="critical"),
        *_key_expectations(),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name, severity="critical") for name in ("image_bytes", "split")),
        *_between_expectations("image_bytes", min_value=1, mostly=readable, severity="warning"),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(tables.SPLITS), severity="critical"),
        *_between_expectations("impressions", "saves", "clicks", min_value=0),
        *(
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="impressions",
                column_B=name,
                or_equal=True,
                ignore_row_if="either_value_is_missing",
                severity="critical",
            )
            for name in ("saves", "clicks")
        ),
        *_between_expectations("width", "height", min_value=1, mostly=readable, severity="warning"),
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
        *_between_expectations("brightness", "clipped", "nsfw", min_value=0, max_value=1),
    ]


def masks_suite(limits: Limits) -> list[Expectation]:
    return [
        *_key_expectations(),
        *_between_expectations("mask_bytes", "alpha_bytes", min_value=1),
        *_between_expectations("confidence", min_value=0, max_value=1),
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


def _between_expectations(*columns: str, severity: Severity = "critical", **limits: float) -> list[Expectation]:
    return [gxe.ExpectColumnValuesToBeBetween(column=name, severity=severity, **limits) for name in columns]


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
"""Table -> its suite."""


def read_suite_frame(path: Path, pins: Collection[str] | None) -> pd.DataFrame:
    """Read a table as its suite sees it.

    Binary columns become byte counts `<name>_bytes`; `known`: is the pin in `pins` (None: the table is the pins' own);
    `present`: false in the rows added for pins that the table lacks. Raises `ValueError` for a table without `pin_id`,
    by which every failure is named.
    """
    frames = [_count_bytes(batch) for batch in tables.read_batches(path, rows=2_000)]
    if not frames or "pin_id" not in frames[0].column_names:
        raise ValueError(f"{path} is no table with a pin_id column: make it again")
    table = pa.concat_tables(frames)
    missing = sorted(set(pins or ()) - set(table["pin_id"].to_pylist()))
    present = pa.array([True] * table.num_rows + [False] * len(missing))
    table = pa.concat_tables([table, pa.table({"pin_id": missing})], promote_options="permissive")
    frame = table.append_column("present", present).to_pandas()
    frame["known"] = True if pins is None else frame["pin_id"].isin(pins)
    if "product_id" in frame:
        frame["uncategorised"] = frame["product_id"].notna() & frame["category"].isna()
    return frame


def _count_bytes(batch: pa.RecordBatch) -> pa.Table:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        binary = pa.types.is_binary(column.type)
        columns[f"{name}_bytes" if binary else name] = pc.binary_length(column) if binary else column
    return pa.table(columns)


def validate_frames(
    title: str, frames: Mapping[str, pd.DataFrame], limits: Limits, docs: Path, failed: Path
) -> Validation:
    """Check the tables and render the page.

    Raises `ValueError` for a critical failure, naming the expectation, the column and sample pins; its page is then
    left at `failed`.
    """
    checks = check_frames(frames, limits, docs)
    if critical := select_failures(checks, "critical"):
        failed.write_text(render_validation_page(title, checks, {}), encoding="utf-8")
        raise ValueError(f"{critical[0]}; critical failures in all: {len(critical)}, see {failed}")
    links = {"Great Expectations' Data Docs": f"{docs.name}/index.html"}
    return Validation(checks, render_validation_page(title, checks, links))


def check_frames(frames: Mapping[str, pd.DataFrame], limits: Limits, docs: Path) -> list[Check]:
    """Check each table (name in `SUITES` -> its frame); write Data Docs (`index.html`) to `docs`.

    Great Expectations does not escape what it shows of a table, and fetches scripts and styles: its pages get the
    content security policy of ours, under which nothing of either runs.
    """
    # It takes $ in the name of a folder for a variable, so its own one is of a plain name.
    with tempfile.TemporaryDirectory(prefix="docs-") as folder:
        pages_folder = Path(folder) / "docs"  # not private, as the temporary folder is
        pages_folder.mkdir()
        checks = _check_and_document(frames, limits, pages_folder)
        shutil.copytree(pages_folder, docs, dirs_exist_ok=True)
    for page in docs.rglob("*.html"):
        text = DRAWN.sub(r"\1", STAMP.sub(r"\1", page.read_text(encoding="utf-8")))
        page.write_text(pages.protect_page(text), encoding="utf-8")
    return checks


def _check_and_document(frames: Mapping[str, pd.DataFrame], limits: Limits, docs: Path) -> list[Check]:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    config = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site("docs", config)
    source = context.data_sources.add_pandas("tables")
    return [check for name, frame in frames.items() for check in _run_suite(context, source, name, frame, limits)]


def _run_suite(context: Any, source: Any, name: str, frame: pd.DataFrame, limits: Limits) -> list[Check]:
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=SUITES[name](limits)))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["docs"])],
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["pin_id"],
                "partial_unexpected_count": SAMPLES,
            },
        )
    )
    # one run name and time, which Great Expectations puts into paths: the same table gives the same site
    run = gx.RunIdentifier(run_name="validation", run_time=EPOCH)
    (validation,) = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=run).run_results.values()
    return [_build_check(name, result) for result in validation.results]


def _build_check(table: str, result: Any) -> Check:
    config, details = result.expectation_config, result.result or {}
    error = _format_error(result.exception_info)
    kwargs = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    column = kwargs.pop("column", None) or ", ".join(kwargs.pop("column_list", [])) or kwargs.get("column_A", "")
    samples = dict.fromkeys(str(row["pin_id"]) for row in details.get("partial_unexpected_index_list") or [])
    observed = f" (found {details['observed_value']})" if "observed_value" in details else ""
    settings = ", ".join(f"{key}={value}" for key, value in kwargs.items())
    return Check(
        table=table,
        expectation=config.type,
        column=str(column),
        severity="critical" if error or config.severity.value == "critical" else "warning",
        success=bool(result.success),
        unexpected=int(details.get("unexpected_count", 0)),
        samples=tuple(samples)[:SAMPLES],
        detail=(f"({settings})" if settings else "") + (f" cannot be checked: {error};" if error else observed),
    )


def _format_error(info: Mapping[str, Any]) -> str:
    """Return why an expectation could not be checked (a column is missing, a type is wrong), or "".

    Great Expectations gives one error, or a mapping of metrics to errors.
    """
    errors = [info] if "raised_exception" in info else list(info.values())
    messages = [" ".join(str(error["exception_message"]).split()) for error in errors if error["raised_exception"]]
    return messages[0].removeprefix("Error: ").rstrip(".") if messages else ""


def select_failures(checks: Sequence[Check], severity: Severity) -> list[Check]:
    return [check for check in checks if not check.success and check.severity == severity]


def count_checks(checks: Sequence[Check]) -> dict[str, dict[str, int]]:
    """Return table -> counts of checks met, warnings and critical failures."""
    return {
        table: {
            "met": sum(check.success for check in checks if check.table == table),
            "warnings": sum(check.table == table for check in select_failures(checks, "warning")),
            "critical": sum(check.table == table for check in select_failures(checks, "critical")),
        }
        for table in dict.fromkeys(check.table for check in checks)
    }


def render_validation_page(title: str, checks: Sequence[Check], links: Mapping[str, str]) -> str:
    """Render the expectations and their results, failures first; `links` are text -> relative address."""
    critical, warnings = select_failures(checks, "critical"), select_failures(checks, "warning")
    verdict = f"{sum(check.success for check in checks)} of {len(checks)} expectations are met"
    mood: pages.Mood = "bad" if critical else "warn" if warnings else "good"
    rows = [
        {
            "table": check.table,
            "column": check.column,
            "expectation": check.expectation.removeprefix("expect_").replace("_", " ") + check.detail,
            "severity": check.severity,
            "met": check.success,
            "unexpected rows": check.unexpected,
            "sample pins": ", ".join(check.samples),
        }
        for check in sorted(checks, key=lambda check: (check.success, check.severity != "critical"))
    ]
    counts = [{"table": name, **numbers} for name, numbers in count_checks(checks).items()]
    return pages.page(
        title,
        pages.verdict(verdict, mood),
        *([pages.links(links)] if links else []),
        pages.section("By table", pages.table(counts)),
        pages.section("Expectations", pages.table(rows)),
    )
