"""People rate in a real browser on a real server; test raters, in a project and a store of their own."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, ImageColor

from canvas.pins import tables
from lifecycle.workspace.digest import digest, read_pin
from tests.lifecycle.conftest import NOBODY, ODD, ROOT, Project
from tests.lifecycle.impostor import run_impostor
from tests.lifecycle.rating import COLOURS, DIGESTS, Rater, browser, key, passwords, serve_raters, write_rating_packet

RATERS = ("test-anna", "test-ben", "test-eve")
needs_browser = pytest.mark.skipif(browser() is None, reason="needs chromium and chromedriver on PATH")
SECONDS_AN_ITEM = 3.0  # twenty a minute


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    """A repository with a packet and an empty table of ratings, in a folder whose name a config may misread."""
    made = Project(tmp_path_factory.mktemp("rating") / ODD)
    (made.root / ".mlflow").mkdir(parents=True)
    shutil.copyfile(empty_store, made.root / ".mlflow" / "mlflow.db")
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        assert made.run(*command).returncode == 0
    shutil.copy(ROOT / "ratings.dvc", made.root)
    write_rating_packet(made.root)
    return made


@pytest.fixture(scope="module")
def pages(project: Project) -> Iterator[dict[str, str]]:
    """Addresses at a server that was started where the environment names a proxy, which must learn no password."""
    with (
        run_impostor() as proxy,
        serve_raters(project, *RATERS, http_proxy=f"http://127.0.0.1:{proxy.port}") as addresses,
    ):
        yield addresses
        assert proxy.received == []


def better(rater: Rater, password: str) -> str:
    """The side on which the challenger's colour is, by a look at the image."""
    address = rater.item()
    answer = requests.get(address, auth=(rater.name, password), timeout=60)
    with Image.open(io.BytesIO(answer.content)) as sheet:
        left = sheet.convert("RGB").getpixel((sheet.width // 4, sheet.height * 2 // 3))
    return "A" if left == ImageColor.getrgb(COLOURS["challenger"]) else "B"


@needs_browser
def test_two_raters_click_through_five_items(project: Project, pages: dict[str, str], tmp_path: Path) -> None:
    known, seconds = passwords(project), []
    for name in ("test-anna", "test-ben"):
        rater = Rater(name, pages[name], known[name], tmp_path)
        try:
            rater.open()
            items = set()
            for _ in range(5):
                assert rater.image_width() > 800
                items.add(rater.item())
                words = better(rater, known[name]) if name == "test-anna" else "A"  # ben does not look
                start = time.monotonic()
                rater.answer(words)
                seconds.append(time.monotonic() - start)
            rater.wait("//*[contains(., 'All items in this queue have been reviewed')]")
        finally:
            rater.close()
        assert len(items) == 5
    assert min(seconds) < SECONDS_AN_ITEM, seconds  # the others wait for what else this machine does


def test_raters_see_nothing_of_each_other(project: Project, pages: dict[str, str]) -> None:
    address = pages["test-anna"].split("/#")[0]
    known = passwords(project)

    def ask(endpoint: str, name: str, password: str) -> requests.Response:
        return requests.get(f"{address}/api/2.0/mlflow/{endpoint}", auth=(name, password), timeout=60)

    assert ask("experiments/search?max_results=10", "test-eve", "guessed").status_code == 401
    experiments = ask("experiments/search?max_results=10", "test-eve", known["test-eve"]).json()["experiments"]
    assert [one["name"].rpartition("/")[2] for one in experiments] == ["test-eve"]
    annas = pages["test-anna"].split("/experiments/")[1].split("/")[0]
    assert ask(f"experiments/get?experiment_id={annas}", "test-eve", known["test-eve"]).status_code == 403
    config = f"{address}/ajax-api/3.0/mlflow/assistant/config"  # of what could run commands here
    assert requests.get(config, auth=("test-eve", known["test-eve"]), timeout=60).status_code == 403
    assert requests.get(config, auth=("admin", known["admin"]), timeout=60).status_code == 404


def test_what_the_server_must_not_know_is_not_there(project: Project, pages: dict[str, str]) -> None:
    stored = [path for path in (project.root / ".mlflow").rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in stored)
    secret = [DIGESTS["challenger"], *(one["first"] for one in key(project)["items"].values())]
    for path in stored:
        data = path.read_bytes()
        assert not [name for name in secret if name and name.encode() in data], path
    assert (project.root / ".mlflow" / "rating" / "secrets.json").stat().st_mode & 0o077 == 0
    assert project.run("git", "check-ignore", "-q", ".mlflow/rating/secrets.json").returncode == 0
    written = project.read("rate.log") + project.read(".mlflow/rating/server.log") + " ".join(pages.values())
    assert not [password for password in passwords(project).values() if password in written]


def rate_by_hand(project: Project, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eve answers one item with what is no answer, one without submitting it, and one in the name of Anna."""
    import mlflow
    from mlflow.entities import AssessmentSource
    from mlflow.genai import review_queues

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "test-eve")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", passwords(project)["test-eve"])
    mlflow.set_tracking_uri(page.split("/#")[0])
    queue = page.split("selectedQueueId=")[1]
    items = [item.item_id for item in review_queues.list_review_queue_items(queue)]
    source = AssessmentSource(source_type="HUMAN", source_id="test-anna")
    for trace, words, submits in zip(items, ("Better", "A", "A"), (True, False, True), strict=False):
        mlflow.log_feedback(trace_id=trace, name="Which picture is better, all in all?", value=words, source=source)
        if submits:
            review_queues.set_review_queue_item_status(
                queue, item_id=trace, status="complete", completed_by="test-anna"
            )


@needs_browser
def test_ratings_are_pulled_checked_and_pinned(
    project: Project, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_by_hand(project, pages["test-eve"], monkeypatch)
    done = project.lifecycle("ratings", "pull")
    assert done.returncode == 0, done.stderr
    rows = tables.read(project.root / "ratings").to_pylist()
    by_rater: dict[str, list[dict[str, Any]]] = {name: [row for row in rows if row["rater"] == name] for name in RATERS}
    assert {row["source"] for row in rows} == {"human"}

    annas = by_rater["test-anna"]
    assert len(annas) == 5
    assert {row["set_aside"] for row in annas} == {None}
    won = [row["value"] if row["first_model"] == DIGESTS["challenger"] else 1 - row["value"] for row in annas]
    assert won == [1.0] * 5
    assert [row["attention"] for row in annas].count(True) == 1
    assert all(row["timestamp"] is not None for row in annas)

    assert {row["set_aside"] for row in by_rater["test-ben"]} == {"failed 1 of 1 attention checks"}
    assert len(by_rater["test-ben"]) == 5

    reasons = sorted(row["set_aside"] for row in by_rater["test-eve"])
    assert len(reasons) == 3
    assert any("'Better' is none of the answers A, B, No difference" in reason for reason in reasons)
    assert any("not submitted" in reason for reason in reasons)

    assert done.stdout.startswith("ratings/ holds 13 judgments, 13 of this packet")
    assert "test-ben: 0 count; 5 set aside: failed 1 of 1 attention checks" in done.stdout
    assert digest(project.root / "ratings") == read_pin("ratings", project.root)


def test_pull_needs_the_packet_and_its_key(project: Project) -> None:
    hidden = project.root / "artifacts" / "packet_key" / "key.json"
    away = hidden.rename(hidden.with_suffix(".away"))
    try:
        refused = project.lifecycle("ratings", "pull")
    finally:
        away.rename(hidden)
    assert refused.returncode == 1
    assert "is missing: without it nobody knows who made what" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("ratings", "pull"), ("rate", "test-anna")])
def test_a_server_that_is_off_is_one_sentence(project: Project, command: tuple[str, ...]) -> None:
    off = {"MLFLOW_TRACKING_URI": NOBODY, "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}
    refused = project.lifecycle(*command, **off)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"tracking at {NOBODY} is of no help (")
    assert len(refused.stderr.splitlines()) == 1
    assert "secret" not in refused.stderr


@pytest.mark.parametrize("command", [("ratings", "pull"), ("rate", "test-anna")])
def test_a_server_without_a_host_is_one_sentence(project: Project, command: tuple[str, ...]) -> None:
    refused = project.lifecycle(*command, MLFLOW_TRACKING_URI="http://")
    assert refused.returncode == 1
    assert refused.stderr == "MLFLOW_TRACKING_URI is http://, which names no host: write http://HOST:PORT\n"


@pytest.mark.parametrize("name", ["Anna", "admin", "a/b", ""])
def test_names_that_cannot_be(name: str) -> None:
    from lifecycle.ratings.server import RatingServer, Secrets

    server = RatingServer("http://127.0.0.1:9", Secrets(Path(os.devnull), 9, ""), ("admin", ""))
    with pytest.raises(ValueError, match="cannot be a rater's name"):
        server.enroll(name)
