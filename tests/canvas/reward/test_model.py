from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from canvas.clip.model import TextTower
from canvas.reward.model import (
    RewardModel,
    build_reward,
    calibrate_logits,
    load_reward,
    predict_scores,
    prepare_inputs,
    tokenize_backgrounds,
)
from canvas.reward.objective import set_calibration
from canvas.reward.spec import HEADS, RewardSpec
from lifecycle.declare.params import read_section
from tests.canvas.public_models import spread_weights, write_clip

SPEC = RewardSpec(
    image_size=32,
    channels=(8, 16),
    layers_per_block=1,
    hidden=16,
    text_encoder="first",
    dropout=0.1,
    photo_layers=(1, 2),
    init_from=None,
)
NAMES = ["aesthetics", "defects", "fidelity", "overall"]


def build_tower(seed: int = 0) -> TextTower:
    """A random text tower, its weights enlarged: as they are, every text would look nearly the same."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": 8, "context_length": 12, "width": 8, "heads": 2, "layers": 2}
    return spread_weights(TextTower(**sizes, quick_gelu=False, pad_with_end=False))


def build_tiny_reward(seed: int = 0, spec: RewardSpec = SPEC) -> RewardModel:
    tower = build_tower()
    torch.manual_seed(seed)
    return build_reward(spec, tower).eval()


@pytest.fixture
def model() -> RewardModel:
    return build_tiny_reward()


def build_images(size: int, side: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs, originals, masks of `size` images."""
    draw = torch.Generator().manual_seed(0)
    outputs, originals = torch.randint(0, 256, (2, size, 3, side, side), dtype=torch.uint8, generator=draw)
    masks = torch.zeros(size, 1, side, side, dtype=torch.bool)
    masks[..., 10:30, 12:28] = True
    return outputs, originals, masks


def test_scores_are_probabilities_by_name(model):
    scores = predict_scores(model, *build_images(5), batch_size=2)
    assert sorted(scores) == NAMES
    for values in scores.values():
        assert values.shape == (5,)
        assert ((values >= 0) & (values <= 1)).all()
        assert values.std() > 0


def test_scores_do_not_depend_on_the_rest_of_the_batch(model):
    outputs, originals, masks = build_images(5)
    together = predict_scores(model, outputs, originals[:1], masks[:1])
    alone = predict_scores(model, outputs[3:4], originals[:1], masks[:1])
    for name in NAMES:
        torch.testing.assert_close(together[name][3:4], alone[name])


def test_the_originals_background_is_not_seen_but_its_product_is(model):
    outputs, originals, masks = build_images(2, side=32)
    seen = predict_scores(model, outputs, originals, masks)
    elsewhere = torch.where(masks, originals, 255 - originals)
    changed = torch.where(masks, 255 - originals, originals)
    for name in NAMES:
        torch.testing.assert_close(seen[name], predict_scores(model, outputs, elsewhere, masks)[name])
        assert not torch.allclose(seen[name], predict_scores(model, outputs, changed, masks)[name])


def test_a_prompt_changes_the_overall_score_alone_and_only_by_its_background(model):
    given = build_images(2)
    plain, asked, same, other = (
        predict_scores(model, *given, prompts=prompts)
        for prompts in (None, ["a mug, in a forest"] * 2, ["shoes, in a forest"] * 2, ["a mug, in a lobby"] * 2)
    )
    for name in NAMES[:3]:
        torch.testing.assert_close(plain[name], asked[name])
    torch.testing.assert_close(asked["overall"], same["overall"])
    assert not torch.allclose(asked["overall"], plain["overall"])
    assert not torch.allclose(asked["overall"], other["overall"])
    torch.testing.assert_close(predict_scores(model, *given, prompts=["", ""])["overall"], plain["overall"])


def test_any_background_has_a_chance_of_its_own(model):
    given = build_images(3)
    prompts = ["a mug, in a forest", "shoes, on the moon", "a mug, in a forest"]
    mixed = predict_scores(model, *given, prompts=prompts, batch_size=2)["background"]
    assert ((mixed > 0) & (mixed < 1)).all()
    for place, prompt in enumerate(prompts):  # whatever the others ask for
        alone = predict_scores(model, *(values[place : place + 1] for values in given), prompts=[prompt])
        torch.testing.assert_close(alone["background"], mixed[place : place + 1])
    same = predict_scores(model, *given, prompts=["a lamp, In a Forest"] * 3)["background"]
    torch.testing.assert_close(same[::2], mixed[::2])
    assert not torch.allclose(same[1], mixed[1])
    assert "background" not in predict_scores(model, *given)
    assert "background" not in predict_scores(model, *given, prompts=["", "", ""])


def test_people_rank_by_more_than_the_background(model):
    model.register_to_config(rated=True)
    assert "background" not in predict_scores(model, *build_images(3), prompts=["a mug, in a forest"] * 3)


def test_text_tower_is_a_frozen_copy():
    tower, model = build_tower(), build_tiny_reward()
    assert all(
        torch.equal(a, b) for a, b in zip(tower.state_dict().values(), model.text.state_dict().values(), strict=True)
    )
    assert not any(weight.requires_grad for weight in model.text.parameters())
    assert model.scene.out_features == 8


def test_a_background_without_words_has_no_tokens():
    tokens = tokenize_backgrounds(build_tower(), ["in a forest, at night", "", "In a forest, at NIGHT", " "])
    assert tokens.shape == (4, 12)
    assert torch.equal(tokens[0], tokens[2])
    assert tokens[0].any()
    assert not tokens[[1, 3]].any()


def test_calibration_is_saved_with_the_weights(model, tmp_path):
    before = predict_scores(model, *build_images(3))
    set_calibration(model, dict.fromkeys(HEADS, (np.array([-1.0, 1.0]), np.array([0.2, 0.3]))))
    after = predict_scores(model, *build_images(3))
    for name in NAMES:
        assert ((after[name] > 0.19) & (after[name] < 0.31)).all()
        assert after[name].argsort().tolist() == before[name].argsort().tolist()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = predict_scores(load_reward(tmp_path), *build_images(3))
    for name in NAMES:
        assert torch.equal(loaded[name], after[name])


def test_before_calibration_chances_are_the_sigmoid_and_ranks_are_kept_on_one_level(model):
    logits = torch.linspace(-7, 7, 50)[:, None].repeat(1, len(HEADS))
    torch.testing.assert_close(calibrate_logits(model, logits), logits.sigmoid(), atol=0.01, rtol=0)
    set_calibration(model, dict.fromkeys(HEADS, (np.array([-3.0, -1, 1, 3]), np.array([0.1, 0.5, 0.5, 0.9]))))
    calibrated = calibrate_logits(model, 3 * logits)
    assert (calibrated.diff(dim=0) > 0).all()
    assert ((calibrated > 0.09) & (calibrated < 0.91)).all()
    middle = logits[:, 0].abs() < 0.3
    torch.testing.assert_close(calibrated[middle], torch.full_like(calibrated[middle], 0.5), atol=0.01, rtol=0)


def test_images_of_the_models_size_are_seen_as_they_are(model):
    outputs, originals, masks = build_images(1, side=32)
    seen, _, mask = prepare_inputs(model, outputs, originals, masks)
    torch.testing.assert_close((seen + 1) * 127.5, outputs.float())
    assert torch.equal(mask.bool(), masks)


def test_an_image_without_a_product_or_without_a_background_gets_finite_scores(model):
    outputs, originals, masks = build_images(1)
    for mask in (torch.zeros_like(masks), torch.ones_like(masks)):
        assert all(values.isfinite().all() for values in predict_scores(model, outputs, originals, mask).values())


def test_training_goes_on_from_a_model_of_the_same_form(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = build_reward(replace(SPEC, init_from=str(tmp_path)), build_tower(seed=1))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    with pytest.raises(ValueError, match="differs in hidden"):
        build_reward(replace(SPEC, init_from=str(tmp_path), hidden=8), build_tower())


def test_models_that_training_cannot_go_on_from_are_refused(model, tmp_path):
    write_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"holds no model of train_reward: .* set train_reward.train to null"):
        build_reward(replace(SPEC, init_from=str(tmp_path / "clip")), build_tower())
    model.save_pretrained(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["text_config"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="knows a list of backgrounds alone: train it again"):
        load_reward(tmp_path / "old")


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_reward(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("dropout", 1.0), ("text_encoder", "third")])
def test_params_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"'{name}' .* is \"?{value}"):
        read_section(RewardSpec, "reward", {"reward": asdict(SPEC) | {name: value}})


@pytest.mark.parametrize("changes", [{"channels": (8,)}, {"image_size": 30}])
def test_forms_that_cannot_be_built_are_refused(changes):
    with pytest.raises(ValueError, match="reward needs"):
        replace(SPEC, **changes)
