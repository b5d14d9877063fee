"""Public weights: a directory of this machine, or a repository of the Hugging Face hub at one commit."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LICENCE_UNKNOWN = "not stated"
CONFIG_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "README.md")
"""What is read beside the weights: configs, tokenizers, chat templates, the model card."""
VARIANTS = ("*.fp16.*", "*.bf16.*", "*.non_ema.*")
"""Other forms of the same weights, which are not read."""
SOURCE_FILE = "source.json"
"""Beside weights that a stage read: where they came from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of a repository as they lie on this machine."""

    repository: str
    folder: Path  # of the part, where only a subfolder of the repository was asked for
    commit: str | None  # None: a directory of this machine
    licence: str  # as the model card says, or LICENCE_UNKNOWN

    def describe(self) -> dict[str, str]:
        """Return what a model's metadata keep of it; of a directory that names its own source, that one."""
        if self.commit is None and (sources := read_sources(Path(self.repository).expanduser())).keys() == {""}:
            return dict(sources[""])
        return {"repository": self.repository, "commit": self.commit or "", "licence": self.licence}


def fetch_snapshot(
    repository: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    weights: tuple[str, ...] = ("*.safetensors",),
) -> Snapshot:
    """Return a directory as it is, or a hub repository's files, downloaded once a commit.

    Args:
        repository: A directory, or a hub id as OWNER/NAME or OWNER/NAME@REVISION; a name that begins with `.`, `/` or
            `~` is a directory's.
        revision: Commit, tag or branch of a hub repository; None: that in the id, or its main branch.
        subfolder: The only one that is read; a directory or repository without it holds the part itself.
        weights: Patterns of the files of weights.

    Raises:
        ValueError: There is no such directory, repository or revision, or the hub cannot be reached.
    """
    local = Path(repository).expanduser()
    if local.is_dir():
        if revision is not None:
            raise ValueError(f"revision {revision!r} is given, but {repository} is a directory: set it to null")
        return Snapshot(
            repository=repository,
            folder=_choose_folder(local, subfolder),
            commit=None,
            licence=_read_licence(local),
        )
    name, _, pinned = repository.partition("@")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"{repository!r} is neither a directory nor a hub id, as OWNER/NAME or OWNER/NAME@REVISION")
    if pinned and revision is not None:
        raise ValueError(f"{repository!r} names a revision, and revision is {revision!r}: give one of them")
    root = _download(name, revision or pinned or None, subfolder, weights)
    return Snapshot(
        repository=name,
        folder=_choose_folder(root, subfolder),
        commit=root.name,  # the cache lays a repository's files into snapshots/COMMIT
        licence=_read_licence(root),
    )


def record_source(repository: str | None, folder: Path, *, subfolder: str | None = None) -> None:
    """Write into a model's directory where its first weights came from; nothing if `repository` is None."""
    if repository is not None:
        write_source(fetch_snapshot(repository, subfolder=subfolder).describe(), folder)


def write_source(source: Mapping[str, str], folder: Path) -> None:
    """Write SOURCE_FILE into a model's directory."""
    (folder / SOURCE_FILE).write_text(json.dumps(dict(source), indent=1) + "\n", encoding="utf-8")


def read_sources(folder: Path) -> dict[str, dict[str, str]]:
    """Return where the weights in a model's directory came from: "", or the part's folder in it -> the source."""
    files = {"": folder / SOURCE_FILE} | {file.parent.name: file for file in sorted(folder.glob(f"*/{SOURCE_FILE}"))}
    return {part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items() if file.is_file()}


def link_model(source: Path, target: Path) -> Counter[str]:
    """Put configs and safetensors of a directory into another, as `link_files` does.

    Raises:
        ValueError: The directory holds no safetensors.
    """
    files = [file for file in sorted(source.iterdir()) if file.suffix in (".json", ".safetensors")]
    files = [file for file in files if not any(file.match(variant) for variant in VARIANTS)]
    if not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(f"{source} holds no safetensors: name a model whose weights are stored so")
    return link_files(files, target)


def link_files(files: Iterable[Path], target: Path) -> Counter[str]:
    """Put files into a directory by hard links, or copies where the file system has none; count which are which."""
    target.mkdir(parents=True, exist_ok=True)
    counts = Counter(linked_files=0, copied_files=0)
    for file in files:
        try:
            os.link(file.resolve(), target / file.name)  # the hub's cache holds symbolic links
            counts["linked_files"] += 1
        except OSError:
            shutil.copyfile(file, target / file.name)
            counts["copied_files"] += 1
    return counts


@cache
def _download(repository: str, revision: str | None, subfolder: str | None, weights: tuple[str, ...]) -> Path:
    """Download once a process, so that a branch that moves meanwhile is one commit to all that read it."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns, ignored = [*CONFIG_FILES, *weights], list(VARIANTS)
    try:
        if subfolder is not None and not constants.HF_HUB_OFFLINE:
            files = HfApi(endpoint=constants.ENDPOINT).list_repo_files(repository, revision=revision)
            subfolder = subfolder if any(file.startswith(f"{subfolder}/") for file in files) else None
        if subfolder is None:
            ignored.append("*/*")
        else:
            patterns = ["README.md", *(f"{subfolder}/{pattern}" for pattern in patterns)]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        wanted = f"{repository} at {revision}" if revision else repository
        raise ValueError(f"{wanted} cannot be fetched from the hub: {reason}") from None


def _choose_folder(root: Path, subfolder: str | None) -> Path:
    return root / subfolder if subfolder is not None and (root / subfolder).is_dir() else root


def _read_licence(root: Path) -> str:
    from huggingface_hub import ModelCard

    card = root / "README.md"
    if not card.is_file():
        return LICENCE_UNKNOWN
    try:
        data = ModelCard.load(card, ignore_metadata_errors=True).data
    except ValueError:
        return LICENCE_UNKNOWN
    return str(data.get("license_name") or data.get("license") or LICENCE_UNKNOWN)
