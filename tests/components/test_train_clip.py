import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from canvas.clip.model import load_clip
from canvas.pins import tables
from components.train_clip import train_clip
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.mugs import Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_sidecars(folder)
    return folder


def run(data: Path, out: Path, log: Log | None = None, **params) -> dict:
    out.mkdir()
    train_clip(
        **(params or tiny(train_clip)),
        pins=Input(data / "pins"),
        kept=Input(data / "kept"),
        captions=Input(data / "captions"),
        model=Output(out / "clip"),
        metrics=Output(out / "clip.json"),
        losses=Output(out / "clip.csv"),
        log=log or Log(),
        scratch=Scratch(out / "scratch"),
    )
    return json.loads((out / "clip.json").read_text())


def test_two_encoders_are_trained_and_scored_on_held_out_pins(data, tmp_path):
    log = Log()
    figures = run(data, tmp_path / "out", log)
    assert log.steps == [2, 4, 2, 4]
    assert log.pictures == []
    for name in ("first", "second"):
        assert set(figures[name]) == {"images_per_second", "seconds", "unseen_product", "unseen_view"}
        assert 0 <= figures[name]["unseen_view"]["image_to_text_recall_at_1"] <= 1
        clip = open_clip.create_model(f"local-dir:{tmp_path / 'out' / 'clip' / name}")
        assert np.isfinite(clip.encode_text(torch.zeros(1, 16, dtype=torch.long)).detach().numpy()).all()
    lines = (tmp_path / "out" / "clip.csv").read_text().splitlines()
    assert lines[0] == "step,encoder,loss"
    assert [line.split(",")[:2] for line in lines[1:]] == [[s, n] for n in ("first", "second") for s in ("2", "4")]


def test_titles_of_pins_that_training_saw_are_scored_where_there_is_nothing_else(data, tmp_path):
    for name, changes in (("pins", {"split": "train"}), ("captions", {})):
        table = tables.read(data / name)
        rows = [row | changes for row in table.to_pylist() if row.get("source") != "alt"]
        tables.write_rows(tmp_path / name, rows, table.schema)
    (tmp_path / "kept").symlink_to(data / "kept")
    figures = run(tmp_path, tmp_path / "out")
    assert set(figures["first"]) == {"images_per_second", "seconds", "train"}
    assert set(figures["notes"]) == {
        "no pin is held out, so pins that training saw were scored",
        "no pin has a caption from alt, so title stood for it",
    }


def test_public_encoders_are_used_as_they_are(data, tmp_path):
    run(data, tmp_path / "trained")
    sections = tiny(train_clip)
    both = {}
    for name in ("first", "second"):
        both[name] = dict_of(getattr(sections["text"], name)) | {"init_from": str(tmp_path / "trained" / "clip" / name)}
    from canvas.clip.spec import ClipSpec, TextSpec

    text = TextSpec(**{name: ClipSpec(**values) for name, values in both.items()}, t5=None)
    figures = run(data, tmp_path / "out", **tiny(train_clip, train=None) | {"text": text})
    assert "images_per_second" not in figures["first"]
    before = load_clip(tmp_path / "trained" / "clip" / "second").state_dict()
    after = load_clip(tmp_path / "out" / "clip" / "second").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def dict_of(spec) -> dict:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_untrained_encoders_need_weights(data, tmp_path):
    with pytest.raises(ValueError, match=r"train_clip\.train is null: text\.first needs training"):
        run(data, tmp_path / "out", **tiny(train_clip, train=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 2}, "accumulate is 2: pairs are told apart within one pass"),
        ({"parallel": "fsdp"}, 'parallel is "fsdp": the temperature is one number'),
    ],
)
def test_settings_that_it_cannot_heed_are_refused(change, message):
    with pytest.raises(ValueError, match=rf"'train_clip': {message}.* in train\.override"):
        tiny(train_clip, train={"override": change})


def test_an_unknown_caption_source_is_named(data, tmp_path):
    with pytest.raises(ValueError, match="captions have no source poem: name some of alt, title"):
        run(data, tmp_path / "out", **tiny(train_clip, sources=["poem"]))
