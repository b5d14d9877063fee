from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VisionEncoderDecoderModel

from canvas.captioner.model import build_captioner, extract_image_features, load_captioner, load_public_captioner
from canvas.captioner.spec import CaptioningSpec, DecoderSpec
from canvas.captioner.training import CaptionObjective, train_tokenizer
from canvas.train.draws import Draws
from lifecycle.declare.params import read_section

SPEC = DecoderSpec(image_size=64, vocabulary=320, width=32, layers=1, heads=4, dropout=0.0)
ASKING = CaptioningSpec(prompt=None, max_tokens=12)
CAPTIONS = ["red mug, in a forest", "blue mug, in a lobby"]


def build_images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    return [Image.fromarray(noise), Image.new("RGBA", (64, 64), (200, 10, 10, 255))]


def captioner():
    torch.manual_seed(0)
    return build_captioner(SPEC, train_tokenizer(CAPTIONS, SPEC.vocabulary), ASKING)


@pytest.fixture(scope="module")
def taught():
    """A captioner that learnt two images by heart."""
    model = captioner()
    model.model.train()
    tokenizer = model.processor.tokenizer
    tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
    batch = {"pin_id": ["a", "b"], "features": extract_image_features(model, build_images()), "labels": labels}
    objective = CaptionObjective(drop=0.0)
    parameters = [p for p in model.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for step in range(40):
        optimizer.zero_grad()
        loss, metrics = objective(model.model, batch, Draws(0, step, 0, 2))
        loss.backward()
        optimizer.step()
    assert metrics["token_accuracy"] == 1
    model.model.eval()
    return model


def test_what_is_learnt_is_said_one_by_one_and_together(taught):
    assert taught.generate_captions(build_images()) == CAPTIONS
    assert [taught.generate_captions([image])[0] for image in build_images()] == CAPTIONS


def test_the_captioner_comes_back_from_its_directory(taught, tmp_path):
    taught.save(tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.bin"))
    assert load_captioner(tmp_path / "model").generate_captions(build_images()) == CAPTIONS
    taught.save(tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_captioners_that_load_at_once_are_whole(taught, tmp_path):
    taught.save(tmp_path / "model")
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_captioner, [tmp_path / "model"] * 8))
    assert [captioner.generate_captions(build_images()) for captioner in loaded] == [CAPTIONS] * 8


def test_only_the_decoder_learns():
    model = captioner().model
    assert isinstance(model, VisionEncoderDecoderModel)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.decoder.parameters())


def test_the_trunk_never_looks_at_its_batch():
    model = captioner().model
    assert not any(module.training for module in model.encoder.modules())
    model.train()
    assert not any(module.training for module in model.encoder.modules())


def test_features_of_an_image_do_not_depend_on_its_neighbours():
    fresh = captioner()
    together = extract_image_features(fresh, build_images())
    alone = torch.cat([extract_image_features(fresh, [image]) for image in build_images()])
    assert torch.allclose(together.float(), alone.float(), atol=2e-3)


def test_withheld_features_are_made_up_for_by_the_others():
    seen = []

    class Reader(torch.nn.Module):
        def forward(self, encoder_outputs, labels):
            seen.append(encoder_outputs.last_hidden_state)
            logits = torch.zeros(*labels.shape, 4)
            return type("Output", (), {"loss": logits.sum(), "logits": logits})

    batch = {"pin_id": ["a", "b"], "features": torch.ones(2, 1, 10_000), "labels": torch.zeros(2, 3, dtype=torch.long)}
    CaptionObjective(drop=0.3)(Reader(), batch, Draws(0, 0, 0, 2))
    assert (seen[0] == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    assert seen[0].mean() == pytest.approx(1.0, abs=0.02)


def test_own_captioner_takes_no_prompt(taught, tmp_path):
    taught.save(tmp_path / "model")
    with pytest.raises(ValueError, match="VisionEncoderDecoderModel takes none"):
        load_public_captioner(str(tmp_path / "model"), CaptioningSpec(prompt="a photo of", max_tokens=5))
    assert load_public_captioner(str(tmp_path / "model"), ASKING).generate_captions(build_images()) == CAPTIONS


def test_what_is_no_captioner_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no image-text-to-text model of transformers in safetensors"):
        load_captioner(tmp_path / "nothing")
    (tmp_path / "hub").mkdir()
    with pytest.raises(ValueError, match="is no image-text-to-text model of transformers in safetensors"):
        load_public_captioner(str(tmp_path / "hub"), ASKING)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_size": 100}, "'image_size' in section 'decoder' is 100: it must be a multiple of 32"),
        ({"width": 30}, "width is 30"),
    ],
)
def test_wrong_specs_are_named(change, named):
    values = {"image_size": 64, "vocabulary": 320, "width": 32, "layers": 1, "heads": 4, "dropout": 0.0}
    with pytest.raises(ValueError, match=named):
        read_section(DecoderSpec, "decoder", {"decoder": values | change})
