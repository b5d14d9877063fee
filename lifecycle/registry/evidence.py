"""The digests of the evidence that a version was registered with, so that damaged evidence is never taken for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from lifecycle.workspace.digest import digest

LISTING = "digests.json"
"""Beside the evidence: path of a file -> MD5."""
TAG = "evidence_digest"
"""Tag of the version: MD5 of LISTING. Versions from before it was written have none, and are taken as they are."""


def list_digests(evidence: Mapping[str, Path]) -> str:
    """Return the text of LISTING for files, and for directories by their names in the evidence."""
    digests = {}
    for name, path in evidence.items():
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            digests[name if file == path else f"{name}/{file.relative_to(path).as_posix()}"] = digest(file)
    return json.dumps(dict(sorted(digests.items())), indent=1) + "\n"


def compute_listing_digest(listing: str) -> str:
    """Return the MD5 of the text of a LISTING."""
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest()


def verify_evidence(folder: Path, tags: Mapping[str, str], label: str) -> None:
    """Check downloaded evidence of the version with these tags, and remove files that are not of it.

    `ValueError` naming the first file that is missing or has other bytes than were registered.
    """
    if TAG not in tags:
        return
    listing = folder / LISTING
    text = listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else ""
    remedy = "register it again with `dvc repro --force register`"
    if compute_listing_digest(text) != tags[TAG]:
        raise ValueError(f"the evidence of {label} is damaged: {LISTING} is not what was registered; {remedy}")
    digests: dict[str, str] = json.loads(text)
    for name, content in digests.items():
        file = folder / name
        if not file.is_file() or digest(file) != content:
            raise ValueError(f"the evidence of {label} is damaged: {name} is not what was registered; {remedy}")
    for file in folder.rglob("*"):  # what an earlier registration of the same content had, and this one has not
        if file.is_file() and file != listing and file.relative_to(folder).as_posix() not in digests:
            file.unlink()
