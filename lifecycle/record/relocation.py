"""A project that was moved or copied: MLflow's SQLite store names artifacts by absolute addresses, which are brought to
where the project is now."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("model_version_tags", "value"),  # evidence.<page>
    ("trace_tags", "value"),  # mlflow.artifactLocation
)
"""Where MLflow 3 and the registry keep addresses of artifacts."""
FOLDERS = COLUMNS[1:4]  # those that name a folder of a run or model
PLACE = "/.mlflow/artifacts"
BUSY_SECONDS = 60.0


def relocate_artifacts(store: Path, artifacts: Path) -> None:
    """Let every address in the project's own `store` that lies in another project's `.mlflow/artifacts` point into
    `artifacts`. What was written to the former place since the move is copied from there, if it is still there."""
    if not store.is_file():
        return
    with closing(sqlite3.connect(store, timeout=BUSY_SECONDS)) as connection:
        columns = [column for column in COLUMNS if _has_column(connection, *column)]
        address = artifacts.as_uri()
        for former in _find_former_places(connection, columns, address):
            copied = _copy_missing(connection, columns, former, artifacts)
            with connection:
                moved = sum(_replace_prefix(connection, *column, former, address) for column in columns)
            note = f", {copied} folders were copied from there" if copied else ""
            print(f"the project was at {_read_path(former)}: {moved} addresses are brought here{note}", file=sys.stderr)


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def _find_former_places(connection: sqlite3.Connection, columns: list[tuple[str, str]], address: str) -> list[str]:
    """Return addresses of `.mlflow/artifacts` of other places than `address`."""
    places = set()
    for table, column in columns:
        query = f"SELECT {column} FROM {table} WHERE {column} LIKE 'file:%' || ? || '%' AND substr({column}, 1, ?) != ?"
        for (value,) in connection.execute(query, (PLACE, len(address) + 1, f"{address}/")):
            head, place, rest = value.partition(PLACE)
            if (not rest or rest.startswith("/")) and head + place != address:
                places.add(head + place)
    return sorted(places)


def _replace_prefix(connection: sqlite3.Connection, table: str, column: str, former: str, address: str) -> int:
    query = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"
    values = (address, len(former) + 1, former, len(former) + 1, f"{former}/")
    return connection.execute(query, values).rowcount


def _copy_missing(connection: sqlite3.Connection, columns: list[tuple[str, str]], former: str, artifacts: Path) -> int:
    """Copy the folders of runs and models that lie at the former place alone; return how many."""
    copied = 0
    for table, column in (pair for pair in FOLDERS if pair in columns):
        query = f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?"
        for (value,) in connection.execute(query, (len(former) + 1, f"{former}/")):
            source, target = _read_path(value), artifacts / unquote(value.removeprefix(f"{former}/"))
            if source.is_dir() and not target.exists():
                shutil.copytree(source, target)
                copied += 1
    return copied


def _read_path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))
