"""What raters are shown of an item whose prompt holds words of a hostile catalogue."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lifecycle.ratings.packet import Packet, read_packet
from lifecycle.ratings.reviews import ITEM, Reviews
from tests.lifecycle.rating import HOSTILE_PROMPT, write_rating_packet

ADDRESS = "http://127.0.0.1:5099"


def test_a_hostile_prompt_neither_replaces_the_image_nor_calls_a_server(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    write_rating_packet(tmp_path)
    whole = read_packet(tmp_path / "artifacts/packet")
    assert all(item.prompt.startswith(HOSTILE_PROMPT.partition("{")[0]) for item in whole.items)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    reviews = Reviews.open(f"sqlite:///{tmp_path / 'mlflow.db'}", Packet(whole.name, whole.questions, whole.items[:2]))
    try:
        pages = reviews.load("anna", ADDRESS)
        traces = [trace.info for trace in reviews.client.search_traces(locations=[pages.experiment])]
    finally:
        mlflow.set_tracking_uri(before)
    assert {trace.tags[ITEM] for trace in traces} == {item.item_id for item in whole.items[:2]}
    for trace in traces:
        image = rf"!\[The image\]\({ADDRESS}/ajax-api/2\.0/mlflow/get-trace-artifact\?request_id=[\w-]+&path=[\w.-]+\)"
        assert re.fullmatch(image, trace.response_preview)
        assert not re.search(r"(?<!\\)[\]\[<>]", trace.request_preview)
