import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from canvas.clip.model import build_clip, save_clip
from canvas.pins import tables
from canvas.pins.images import encode_png
from canvas.pins.masks import encode_mask
from canvas.reward.model import ProductImages, load_reward, predict_scores
from canvas.reward.preference import fetch_reward
from components import artifacts
from components.train_reward import train_reward
from lifecycle.declare.stage import Input, Output, Scratch
from tests.canvas.public_models import write_clip
from tests.canvas.reward.test_model import build_images
from tests.components.mugs import Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars

TABLES = ("pins", "kept", "truth", "masks", "captions", "preferences", "clip")
OUTPUTS = ("model", "judgments", "metrics", "losses", "sheet")


def run(data: Path, out: Path, log: Log | None = None, reward: str | None = None, **changes: object) -> dict:
    out.mkdir(exist_ok=True)
    params = tiny(train_reward, **changes)
    params["reward"] = replace(params["reward"], init_from=reward)
    train_reward(
        **params,
        **{name: Input(data / name) for name in TABLES},
        **{name: Output(out / name) for name in OUTPUTS},
        log=log or Log(),
        scratch=Scratch(out / "scratch"),
    )
    return json.loads((out / "metrics").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_sidecars(folder)
    tables.write_rows(folder / "preferences", [], tables.PREFERENCES)
    text = tiny(train_reward)["text"]
    torch.manual_seed(0)
    save_clip(build_clip(text.first), text.first, folder / "clip" / "first")
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Path, dict, Log]:
    out, log = tmp_path_factory.mktemp("reward"), Log()
    return out, run(data, out, log), log


def test_a_model_is_trained_and_scored_on_known_and_unseen_kinds(trained):
    out, figures, log = trained
    assert log.steps == [2]
    assert (out / "losses").read_text().startswith("step,loss\n2,")
    assert {"mixed", "known_kinds", "unseen_kinds", "accuracy_by_kind"} <= figures.keys()
    unseen = {"darkened", "warped", "boxed", "scratched"}  # the mugs' plain scenes hide a blur, and blocks of it
    assert unseen <= figures["accuracy_by_kind"].keys()
    for name in ("known_kinds", "unseen_kinds"):
        for question in ("defects", "fidelity"):
            metrics = figures[name]
            low, mean, high = (metrics[f"{question}_accuracy{end}"] for end in ("_low", "", "_high"))
            assert 0 <= low <= mean <= high <= 1
            assert 0 <= metrics[f"{question}_ece"] <= 1
    assert (out / "sheet").read_bytes().startswith(b"\x89PNG")


def test_a_reward_model_passes_through(trained: tuple[Path, dict, Log], data: Path, tmp_path: Path) -> None:
    out, _, _ = trained
    figures = run(data, tmp_path / "again", train=None, reward=str(out / "model"))
    assert figures["skipped"] == "train_reward.train is null, reward.init_from passes through"
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "again" / "model" / file).samefile(out / "model" / file)
    assert tables.read(tmp_path / "again" / "judgments").num_rows == 0
    config = json.loads((out / "model" / "config.json").read_text())
    older = {name: value for name, value in config.items() if name not in ("text_config", "photo_layers")}
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "config.json").write_text(json.dumps(older | {"words": 64, "word_width": 8}))
    with pytest.raises(ValueError, match="a list of backgrounds alone: train it again"):
        run(data, tmp_path / "none", train=None, reward=str(tmp_path / "older"))
    with pytest.raises(ValueError, match="holds no model: a reward is what train_reward wrote, or CLIPModel"):
        run(data, tmp_path / "none", train=None, reward=str(tmp_path))


def test_a_public_reward_passes_through(data: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    figures = run(data, tmp_path / "out", train=None, reward=str(tmp_path / "clip"))
    assert figures["linked_files"] >= 4
    source = {"repository": str(tmp_path / "clip"), "commit": "", "licence": "mit"}
    assert artifacts.RewardModel.read_sources(tmp_path / "out" / "model") == {"model": source}
    prompts, (images, *product) = ["a mug, in a forest"] * 3, build_images(3)
    rewards = [fetch_reward(folder) for folder in (tmp_path / "clip", tmp_path / "out" / "model")]
    before, after = (reward.score(images, ProductImages(*product), prompts)["overall"] for reward in rewards)
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match=r"it cannot be trained, set train_reward.train to null"):
        run(data, tmp_path / "none", reward=str(tmp_path / "clip"))


def test_held_out_backgrounds_are_never_shown_and_scored_apart(trained, data, tmp_path):
    assert trained[1]["backgrounds"].keys() == {"known"}
    figures = run(data, tmp_path / "out", held_out_backgrounds=["in a lobby"])
    for row in tables.read(tmp_path / "out" / "judgments").to_pylist():
        if row["item_id"].startswith("train"):
            assert int(row["first"][1:3]) % 2 == 0  # every other pin is before a lobby
            assert "scene" not in (row["second"] or "")  # nothing else is left to place a product in
    for group in ("known", "unseen"):
        metrics = figures["backgrounds"][group]
        assert 0 <= metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"] <= 1
        assert metrics["pairs"] > 0
    with pytest.raises(
        ValueError, match=r"held_out_backgrounds \['in a loby'\] are in no .*: name some of .*'in a lobby'"
    ):
        run(data, tmp_path / "typo", held_out_backgrounds=["in a loby"])
    judged = with_preferences(data, tmp_path / "said", make_preferences(["p01", "p02"]))  # in a forest
    assert run(judged, tmp_path / "people", held_out_backgrounds=["in a forest"])["human"]["used"] == 0
    with pytest.raises(ValueError, match=r"held_out_backgrounds .* are all: leave some"):
        run(data, tmp_path / "none", held_out_backgrounds=["in a lobby", "in a forest"])


def test_what_is_saved_judges_calibrated(trained):
    out, _, _ = trained
    model = load_reward(out / "model")
    assert not torch.allclose(model.chances, model.knots.sigmoid())
    picture = torch.randint(0, 256, (1, 3, 50, 60), dtype=torch.uint8)
    mask = torch.zeros(1, 1, 50, 60)
    mask[..., 10:30, 10:30] = 1
    assert all(0 <= float(value) <= 1 for value in predict_scores(model, picture, picture, mask).values())


def test_judgments_are_marked_as_synthetic_and_say_what_was_done(trained):
    out, figures, _ = trained
    rows = tables.read(out / "judgments").to_pylist()
    assert tables.read(out / "judgments").schema.equals(tables.JUDGMENTS)
    assert {row["source"] for row in rows} == {row["rater"] for row in rows} == {"synthetic"}
    assert {row["kind"] for row in rows} == set(tables.JUDGMENT_KINDS)
    assert {row["question"] for row in rows} == set(tables.QUESTIONS)
    assert all(row["cause"] and 0 <= row["value"] <= 1 and not row["attention"] for row in rows)
    assert all((row["second"] is None) == (row["kind"] == "absolute") for row in rows)
    assert len({row["judgment_id"] for row in rows}) == len(rows)
    assert len({row["item_id"] for row in rows if row["item_id"].startswith("train")}) == figures["comparisons"]


def test_training_never_shows_held_out_kinds_nor_held_out_products(trained, data):
    out, _, _ = trained
    split = dict(zip(*tables.read(data / "pins", ["pin_id", "split"]).to_pydict().values(), strict=True))
    for row in tables.read(out / "judgments").to_pylist():
        learnt = row["item_id"].startswith("train")
        pin = row["first"].split("+")[0]
        assert (split[pin] == "train") == learnt
        if learnt:
            assert not {"darkened", "warped", "boxed", "scratched", "pixelated"} & set(row["cause"].split("+"))


def test_the_same_run_gives_the_same_bytes(trained, data, tmp_path):
    run(data, tmp_path / "again")
    weights = [
        (folder / "model" / "diffusion_pytorch_model.safetensors").read_bytes()
        for folder in (trained[0], tmp_path / "again")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kinds", [(), ("no such kind",)])
def test_kinds_that_cannot_be_held_out_are_refused(data, tmp_path, kinds):
    with pytest.raises(ValueError, match="held_out_kinds is"):
        run(data, tmp_path / "out", held_out_kinds=list(kinds))


def make_preferences(pins: list[str], value: float = 1.0) -> list[dict]:
    """People saw the product of each pin in green and in grey, and all four judgments of each prefer the green."""
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 48), bool)
    mask[10:30, 12:36] = True
    grey, green, product = (
        encode_png(Image.fromarray(np.clip(rng.normal(colour, 9, (40, 48, 3)), 0, 255).astype(np.uint8)))
        for colour in (128, (40, 160, 40), (220, 40, 40))
    )
    common = {"prompt": "red mug, in a forest", "mask": encode_mask(mask), "product": product, "judgments": 4}
    return [
        dict.fromkeys(tables.PREFERENCES.names)
        | common
        | {"pin_id": pin, "first": f"{pin}.green", "second": f"{pin}.grey", "preference": value}
        | {"first_image": green, "second_image": grey}
        for pin in pins
    ]


def with_preferences(data: Path, folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    for table in set(TABLES) - {"preferences"}:
        (folder / table).symlink_to(data / table)
    tables.write_rows(folder / "preferences", rows, tables.PREFERENCES)
    return folder


def weights(out: Path) -> bytes:
    return (out / "model" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_what_people_said_is_learnt(trained, data, tmp_path):
    """Judgments of known products are learnt; p13 and p15 each have a held-out product on one side."""
    known = with_preferences(data, tmp_path / "known", make_preferences(["p01", "p02", "p13", "p15", "gone"]))
    figures = run(known, tmp_path / "out")
    assert weights(tmp_path / "out") != weights(trained[0])
    assert load_reward(tmp_path / "out" / "model").config["rated"]
    assert not load_reward(trained[0] / "model").config["rated"]
    run(known, tmp_path / "again")
    assert weights(tmp_path / "out") == weights(tmp_path / "again")
    human = figures["human"]
    assert (human["judgments"], human["used"]) == (16, 12)
    assert human["held_out"]["overall_pairs"] == human["held_out"]["prompted_pairs"] == 1
    assert human["held_out"]["overall_accuracy"] in (0.0, 1.0)
    assert "defects_accuracy" not in human["held_out"]  # nobody was asked


def test_answers_about_images_alone_are_learnt_and_do_not_rank(trained, data, tmp_path):
    """People found defects in the grey images of the products and none in the green ones, and took neither."""
    rows = [
        row | {"first": f"{row['pin_id']}.{name}", "second": None, "first_image": row[image], "second_image": None}
        | {"defects": value, "aesthetics": value, "preference": None}
        for row in make_preferences(["p01", "p02", "p04", "p05", "p15"])
        for name, image, value in (("green", "first_image", 1.0), ("grey", "second_image", 0.0))
    ]  # fmt: skip
    figures = run(with_preferences(data, tmp_path / "said", rows), tmp_path / "out", train={"steps": 30})
    held_out = figures["human"]["held_out"]
    assert (held_out["defects_alone"], held_out["aesthetics_alone"]) == (2, 2)
    assert held_out["defects_alone_accuracy"] == held_out["aesthetics_alone_accuracy"] == 1.0
    assert "overall_alone" not in held_out
    assert not load_reward(tmp_path / "out" / "model").config["rated"]


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_what_people_prefer_is_told_of_a_product_that_nobody_trained_on(data, tmp_path, value):
    judgments = make_preferences(["p01", "p02", "p04", "p05", "p15"], value)
    figures = run(with_preferences(data, tmp_path / "said", judgments), tmp_path / "out", train={"steps": 30})
    assert figures["human"]["held_out"]["overall_accuracy"] == 1.0


@pytest.mark.parametrize("changes", [{"min_human": 9}, {"human_share": 0.0}])
def test_too_little_changes_nothing(trained, data, tmp_path, changes):
    judged = with_preferences(data, tmp_path / "said", make_preferences(["p01", "p02"]))
    figures = run(judged, tmp_path / "out", **changes)
    assert weights(tmp_path / "out") == weights(trained[0])
    assert figures["human"] == {"judgments": 8, "used": 0}


def test_nobody_rated_yet(trained):
    assert trained[1]["human"] == {"judgments": 0, "used": 0}


@pytest.mark.parametrize(
    ("name", "value"), [("human_share", 1.5), ("human_share", 0.1), ("human_share", -0.5), ("min_human", 0)]
)
def test_shares_and_counts_out_of_range_are_refused(data, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}.* is {value}"):
        run(data, tmp_path / "out", **{name: value})
