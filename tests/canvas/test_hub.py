from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from canvas.clip.model import build_clip, load_clip, save_clip
from canvas.clip.spec import TextSpec
from canvas.denoiser.loading import load_denoiser
from canvas.hub import LICENCE_UNKNOWN, SOURCE_FILE, _download, fetch_snapshot, link_model, read_sources, record_source
from canvas.upscaler.loading import fetch_upscaler
from canvas.vae.model import load_vae
from lifecycle.declare.params import load_sections, read_section
from tests.canvas import tiny
from tests.canvas.upscaler.test_ncnn import write_ncnn
from tests.canvas.upscaler.test_rrdb import build_rrdb

COMMIT = "0123456789abcdef0123456789abcdef01234567"

FILES = {
    "README.md": b"---\nlicense: openrail++\n---\n",
    "model_index.json": b"{}",
    "unet/config.json": b'{"a": 1}',
    "unet/model.safetensors": b"weights",
    "unet/model.fp16.safetensors": b"half",
    "unet/model.bin": b"a pickle",
    "vae/model.safetensors": b"others",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download needs; one repository, tiny/model."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in (f"/api/models/tiny/model/revision/{name}" for name in ("main", "v1", COMMIT)):
            siblings = [{"rfilename": name} for name in FILES]
            return self.answer(json.dumps({"id": "tiny/model", "sha": COMMIT, "siblings": siblings}).encode())
        if path.startswith("/api/models/tiny/model/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _digest(data)} for name, data in FILES.items()
            ]
            return self.answer(json.dumps(tree).encode())
        name = path.removeprefix(f"/tiny/model/resolve/{COMMIT}/")
        if name in FILES:
            return self.answer(FILES[name])
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound" if "tiny/model" in path else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    do_HEAD = do_GET  # noqa: N815 (the name that the base class looks for)

    def answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{_digest(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing on the console."""


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """huggingface_hub asks a server on loopback, and keeps what it gets in a folder of this test."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _download.cache_clear()
    yield
    server.shutdown()
    server.server_close()
    _download.cache_clear()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_part_of_a_repository_with_its_commit_and_licence(revision: str | None) -> None:
    snapshot = fetch_snapshot("tiny/model", revision=revision, subfolder="unet")
    assert sorted(file.name for file in snapshot.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert snapshot.describe() == {"repository": "tiny/model", "commit": COMMIT, "licence": "openrail++"}


@pytest.mark.usefixtures("hub")
def test_repository_that_is_the_part_leaves_folders_alone() -> None:
    snapshot = fetch_snapshot("tiny/model")
    assert sorted(file.name for file in snapshot.folder.iterdir()) == ["README.md", "model_index.json"]
    assert fetch_snapshot("tiny/model", subfolder="no-such-part").folder == snapshot.folder


@pytest.mark.usefixtures("hub")
def test_revision_in_the_id() -> None:
    snapshot = fetch_snapshot("tiny/model@v1", subfolder="unet")
    assert (snapshot.repository, snapshot.commit) == ("tiny/model", COMMIT)
    with pytest.raises(ValueError, match="give one of them"):
        fetch_snapshot("tiny/model@v1", revision="main")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("repository", "revision"), [("tiny/model", "no-such-tag"), ("tiny/unknown", None)])
def test_unknown_repository_or_revision_is_named(repository: str, revision: str | None) -> None:
    with pytest.raises(ValueError, match=f"{repository}.* cannot be fetched from the hub"):
        fetch_snapshot(repository, revision=revision)


def test_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    snapshot = fetch_snapshot(str(tmp_path), subfolder="unet")
    assert snapshot.folder == tmp_path / "unet"
    assert snapshot.describe() == {"repository": str(tmp_path), "commit": "", "licence": LICENCE_UNKNOWN}
    assert fetch_snapshot(str(tmp_path / "unet"), subfolder="unet").folder == tmp_path / "unet"


@pytest.mark.parametrize("repository", ["./nowhere", "/nowhere/at/all", "one-word", "a/b/c"])
def test_neither_directory_nor_hub_id(repository: str) -> None:
    with pytest.raises(ValueError, match="neither a directory nor a hub id"):
        fetch_snapshot(repository)


def test_revision_of_a_directory_would_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set it to null"):
        fetch_snapshot(str(tmp_path), revision="main")


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server's repository hold the files of `folder`, at its root, and the model card."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(f"{__name__}.FILES", files | {"README.md": FILES["README.md"]})


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("part", "load"), [("unet", load_denoiser), ("vae", load_vae)])
def test_repository_that_is_a_denoiser_or_autoencoder(
    part: str, load: Callable[[str], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = tiny.public_sdxl(tmp_path / "public").components[part]
    publish(tmp_path / "public" / part, monkeypatch)
    torch.testing.assert_close(load("tiny/model@v1").state_dict(), public.state_dict(), rtol=0, atol=0)
    record_source("tiny/model@v1", tmp_path, subfolder=part)
    source = {"repository": "tiny/model", "commit": COMMIT, "licence": "openrail++"}
    assert json.loads((tmp_path / SOURCE_FILE).read_text()) == source
    assert fetch_snapshot(str(tmp_path)).describe() == source  # what it says of itself, not where it lies now


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["tiny/model@v1", "hf-hub:tiny/model"])
def test_repository_that_is_a_text_image_encoder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read_section(TextSpec, "text", load_sections("tiny", Path(__file__).parents[2])).first
    torch.manual_seed(0)
    save_clip(build_clip(spec), spec, tmp_path / "clip")
    assert read_sources(tmp_path / "clip") == {}
    publish(tmp_path / "clip", monkeypatch)
    started = dataclasses.replace(spec, init_from=name)
    clip = build_clip(started)
    torch.testing.assert_close(clip.state_dict(), load_clip(tmp_path / "clip").state_dict(), rtol=0, atol=0)
    save_clip(clip, started, tmp_path / "models" / "first")
    assert read_sources(tmp_path / "models")["first"]["commit"] == COMMIT


@pytest.mark.usefixtures("hub")
def test_repository_of_several_upscalers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_rrdb()
    (tmp_path / "public").mkdir()
    torch.save(network.state_dict(), tmp_path / "public" / "x4.pth")
    torch.save({}, tmp_path / "public" / "x2.pth")
    publish(tmp_path / "public", monkeypatch)
    loaded, source = fetch_upscaler("tiny/model@v1/x4.pth")
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert source == {"repository": "tiny/model/x4.pth", "commit": COMMIT, "licence": "openrail++"}
    with pytest.raises(ValueError, match=r"tiny/model@v1/x8\.pth is missing"):
        fetch_upscaler("tiny/model@v1/x8.pth")
    with pytest.raises(ValueError, match=r"holds x2\.pth, x4\.pth: name one of them, as tiny/model@v1/x2\.pth"):
        fetch_upscaler("tiny/model@v1")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["tiny/model@v1", "tiny/model@v1/x4.bin", "tiny/model@v1/x4.param"])
def test_repository_of_an_upscaler_in_two_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_rrdb()
    (tmp_path / "public").mkdir()
    write_ncnn(network, tmp_path / "public" / "x4")
    publish(tmp_path / "public", monkeypatch)
    loaded, source = fetch_upscaler(name)
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert source["repository"] == name.replace("@v1", "")


def test_links_are_configs_and_weights_of_one_form(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    for name in ("config.json", "model.safetensors", "model.fp16.safetensors", "model.bin", "README.md"):
        (public / name).write_text(name)
    assert link_model(public, tmp_path / "model") == {"linked_files": 2, "copied_files": 0}
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    (public / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no safetensors"):
        link_model(public, tmp_path / "other")
