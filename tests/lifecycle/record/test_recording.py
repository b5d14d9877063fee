"""What is kept of a stage's outs for people to look at."""

from __future__ import annotations

from pathlib import Path

from lifecycle.declare.stage import Output, Site, stage
from lifecycle.record.journal import Journal, read_events
from lifecycle.record.recording import record_outputs


class Pages(Site, path="reports/pages"):
    """Two pages and a picture."""


@stage()
def publish(pages: Output[Pages]) -> None:
    """Write a small site."""
    (pages.path / "img").mkdir(parents=True)
    (pages.path / "index.html").write_text("<html>one</html>")
    (pages.path / "img" / "dot.png").write_bytes(b"png")


def test_every_file_of_a_site_is_kept_below_its_path(tmp_path: Path) -> None:
    publish(pages=Output(tmp_path / "pages"))
    journal = Journal(tmp_path)
    record_outputs(journal, publish, {"pages": tmp_path / "pages"})
    read = [event for event, _ in read_events(journal.folder)]
    kept = [event["name"] for event in read if event["event"] == "artifact"]
    assert kept == ["reports/pages/img/dot.png", "reports/pages/index.html"]
    assert (journal.folder / "artifacts" / kept[1]).read_text() == "<html>one</html>"
    assert read[-1]["outputs"][0]["kind"] == "Site"
