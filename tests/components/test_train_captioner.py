import pytest

from canvas.captioner.model import load_captioner
from components.artifacts import Captioner
from components.train_captioner import train_captioner
from tests.components.mugs import Log, run_tiny, tiny, write_catalogue


def test_captions_are_learnt_and_the_held_out_splits_are_scored(mugs, tmp_path):
    longer = {"steps": 60, "learning_rate": 0.01, "override": {"log_every": 2}}
    log = Log()
    figures = run_tiny(train_captioner, mugs, tmp_path / "out", log, train=longer, drop=0.0)
    assert log.steps == list(range(2, 61, 2))
    losses = [float(line.split(",")[1]) for line in (tmp_path / "out" / "losses.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.1 * losses[0]
    assert figures["unseen_view"]["captions"] == 3
    assert figures["unseen_product"]["captions"] == 2
    assert 0 <= figures["unseen_product"]["scene_right_low"] <= figures["unseen_product"]["scene_right"] <= 1
    assert "train" not in figures
    load_captioner(tmp_path / "out" / "model")
    assert Captioner.read_sources(tmp_path / "out" / "model") == {}
    used = {"init_from": str(tmp_path / "out" / "model"), "decoder": None, "drop": None, "train": None}
    again = run_tiny(train_captioner, mugs, tmp_path / "again", **used)
    assert again["unseen_view"]["scene_right"] == figures["unseen_view"]["scene_right"]
    (source,) = Captioner.read_sources(tmp_path / "again" / "model").values()
    assert source == {"repository": used["init_from"], "commit": "", "licence": "not stated"}


def test_without_truth_alt_texts_are_learnt_and_nothing_is_scored(tmp_path):
    write_catalogue(tmp_path, truth=False)
    figures = run_tiny(train_captioner, tmp_path, tmp_path / "out")
    assert "unseen_view" not in figures
    tokenizer = load_captioner(tmp_path / "out" / "model").processor.tokenizer
    assert len(tokenizer("View of a forest").input_ids) < 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"init_from": "some/model"}, "an init_from model is used as it is"),
        ({"drop": None}, "drop must be given"),
        ({"decoder": None, "train": None}, "decoder, train must be given"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        tiny(train_captioner, **changes)
