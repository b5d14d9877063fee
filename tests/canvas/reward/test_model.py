from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from canvas.reward.model import (
    MAX_WORDS,
    RewardModel,
    build_reward,
    calibrate_logits,
    hash_words,
    load_reward,
    predict_scores,
    prepare_inputs,
)
from canvas.reward.objective import set_calibration
from canvas.reward.spec import HEADS, RewardSpec
from lifecycle.declare.params import read_section

SPEC = RewardSpec(
    image_size=32,
    channels=(8, 16),
    layers_per_block=1,
    hidden=16,
    words=64,
    word_width=8,
    dropout=0.1,
    photo_layers=(1, 2),
    init_from=None,
)
NAMES = ["aesthetics", "defects", "fidelity", "overall"]


@pytest.fixture
def model() -> RewardModel:
    torch.manual_seed(0)
    return build_reward(SPEC).eval()


def build_images(size: int, side: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs, originals, masks of `size` images."""
    draw = torch.Generator().manual_seed(0)
    outputs, originals = torch.randint(0, 256, (2, size, 3, side, side), dtype=torch.uint8, generator=draw)
    masks = torch.zeros(size, 1, side, side, dtype=torch.bool)
    masks[..., 10:30, 12:28] = True
    return outputs, originals, masks


def test_scores_are_probabilities_by_name(model):
    found = predict_scores(model, *build_images(5), batch_size=2)
    assert sorted(found) == NAMES
    for values in found.values():
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


def test_a_background_is_told_from_the_others_that_the_model_knows(model):
    given, forest = build_images(3), "a mug, in a forest"
    assert "background" not in predict_scores(model, *given, prompts=[forest] * 3)  # it knows none to tell it from
    model.register_to_config(backgrounds=["in a forest", "in a lobby"])
    both = [
        predict_scores(model, *given, prompts=[f"a mug, {place}"] * 3)["background"]
        for place in ("in a forest", "in a lobby")
    ]
    torch.testing.assert_close(both[0] + both[1], torch.ones(3))  # itself is none of the others
    mixed = predict_scores(model, *given, prompts=[forest, "shoes, in a lobby", forest], batch_size=2)["background"]
    torch.testing.assert_close(mixed, torch.stack([both[0][0], both[1][1], both[0][2]]))
    third = predict_scores(model, *given, prompts=["a mug, on the moon"] * 3)["background"]
    assert ((third > 0) & (third < 1)).all()
    assert "background" not in predict_scores(model, *given)
    assert "background" not in predict_scores(model, *given, prompts=["", "", ""])


def test_words_are_hashed_within_their_buckets():
    found = hash_words(["in a forest, at night", "", "In a forest at night", " ".join(["word"] * 40)], 64)
    assert found.shape == (4, MAX_WORDS)
    assert found[0].tolist() == found[2].tolist()
    assert (found[0] > 0).sum() == 5
    assert found[1].sum() == 0
    assert (found[3] > 0).all()
    assert found.max() < 64


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
    found = calibrate_logits(model, 3 * logits)
    assert (found.diff(dim=0) > 0).all()
    assert ((found > 0.09) & (found < 0.91)).all()
    middle = logits[:, 0].abs() < 0.3
    torch.testing.assert_close(found[middle], torch.full_like(found[middle], 0.5), atol=0.01, rtol=0)


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
    again = build_reward(replace(SPEC, init_from=str(tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    with pytest.raises(ValueError, match="differs in hidden"):
        build_reward(replace(SPEC, init_from=str(tmp_path), hidden=8))


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_reward(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("dropout", 1.0), ("words", 1)])
def test_params_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"'{name}' .* is {value}"):
        read_section(RewardSpec, "reward", {"reward": asdict(SPEC) | {name: value}})


@pytest.mark.parametrize("changes", [{"channels": (8,)}, {"image_size": 30}])
def test_forms_that_cannot_be_built_are_refused(changes):
    with pytest.raises(ValueError, match="reward needs"):
        replace(SPEC, **changes)
