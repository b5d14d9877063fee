import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from canvas.decoder.model import ConditionalDecoder
from canvas.decoder.training import LatentGenerator, read_conditioned_pins, select_even_runs, stack_samples
from canvas.denoiser.loading import build_denoiser
from canvas.denoiser.spec import DenoiserSpec
from canvas.denoiser.unet.model import add_inpaint_channels
from canvas.masks.composite import compute_hole
from canvas.pins.images import bytes_to_tensor, tensor_to_bytes
from canvas.shards.rows import ShardRows, has_product
from canvas.vae.model import PixelAutoencoder, load_vae
from components.encode import encode
from components.train_decoder import train_decoder
from lifecycle.declare.params import load_sections, read_section
from lifecycle.declare.stage import Input, Output, Scratch
from tests.components.generator_parts import write_towers
from tests.components.mugs import ROOT, Log, tiny, write_catalogue
from tests.components.sidecars import write_sidecars


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What the stage reads: the painted catalogue encoded by random networks, and a random inpainting denoiser."""
    folder = tmp_path_factory.mktemp("mugs")
    write_catalogue(folder)
    write_sidecars(folder)
    torch.manual_seed(0)
    params = tiny(encode)
    write_towers(folder / "clip", params["text"])
    vae = PixelAutoencoder((16, 16), 1, 4, 4, 8)
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    vae.save_pretrained(folder / "vae")
    encode(
        **params,
        **{name: Input(folder / name) for name in ("pins", "kept", "masks", "captions", "clip", "vae")},
        towers=Input(folder / "clip"),
        shards=Output(folder / "shards"),
        metrics=Output(folder / "encode.json"),
        scratch=Scratch(folder / "scratch"),
    )
    spec = read_section(DenoiserSpec, "denoiser", load_sections("tiny", ROOT))
    unet = build_denoiser(spec, latent_channels=4, sample_size=8, text_width=32, pooled_width=16)
    add_inpaint_channels(unet).save_pretrained(folder / "inpaint" / "unet")
    return folder


def run(data: Path, out: Path, log: Log, scratch: Path, **changes) -> None:
    out.mkdir()
    train_decoder(
        **tiny(train_decoder, **changes),
        **{name: Input(data / name) for name in ("pins", "masks", "shards", "clip", "vae", "inpaint")},
        model=Output(out / "decoder"),
        metrics=Output(out / "decoder.json"),
        losses=Output(out / "decoder.csv"),
        sheet=Output(out / "decoder.png"),
        log=log,
        scratch=Scratch(scratch),
    )


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[dict, Path, Log]:
    place, log = tmp_path_factory.mktemp("decoder"), Log()
    out = place / "out"
    run(data, out, log, place / "scratch")
    return json.loads((out / "decoder.json").read_text()), out, log


def test_the_core_of_held_out_products_is_exact(trained):
    figures, out, log = trained
    assert log.steps == [2, 4]
    assert log.pictures == ["samples-000004"]
    assert figures["core_max_abs_diff"] == figures["encoded"]["core_max_abs_diff"] == 0
    assert figures["pins"] == figures["encoded"]["pins"] == 3  # p13, p14, p16 show a product
    for of in (figures, figures["encoded"]):
        assert of["seam_gradient_ratio_low"] <= of["seam_gradient_ratio"] <= of["seam_gradient_ratio_high"]
        assert of["seam_gradient_ratio_pasted"] > 0
    assert len((out / "decoder.csv").read_text().splitlines()) == 3
    with Image.open(out / "decoder.png") as sheet:
        assert sheet.width > 2 * 128


def test_the_trained_decoder_loads_and_left_its_start(trained, data):
    decoder = ConditionalDecoder.from_pretrained(trained[1] / "decoder")
    before = load_vae(data / "vae").state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in decoder.trunk.state_dict().items())
    assert decoder.config["erosion"] == 1


def test_a_killed_run_goes_on_where_it_was(trained, data, tmp_path, monkeypatch):
    """Neither painted nor trained again; `scratch` is what is left of the first run."""

    def never(*_) -> None:
        raise AssertionError("what was painted is painted again")

    monkeypatch.setattr(LatentGenerator, "_generate_batch", never)
    log = Log()
    run(data, tmp_path / "out", log, trained[1].parent / "scratch")
    assert log.steps == []
    names = ("decoder/diffusion_pytorch_model.safetensors", "decoder.png", "decoder.csv")
    assert all((trained[1] / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)


def test_painting_that_was_killed_goes_on(data, tmp_path, monkeypatch):
    paint, rows = LatentGenerator._generate_batch, []

    def dying(self: LatentGenerator, chosen: list[int]) -> torch.Tensor:
        rows.append(list(chosen))
        if len(rows) == 2:
            raise KeyboardInterrupt
        return paint(self, chosen)

    monkeypatch.setattr(LatentGenerator, "_generate_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "killed", Log(), tmp_path / "scratch", sampling={"batch_size": 1})
    run(data, tmp_path / "out", Log(), tmp_path / "scratch", sampling={"batch_size": 1})
    assert rows[1] == rows[2]  # what it was at is begun again
    assert rows[0] not in rows[1:]


def test_known_pins_are_cropped_as_their_latents(data):
    shards, vae = ShardRows(data / "shards"), load_vae(data / "vae").eval()
    rows = [row for row in shards.index if has_product(row) and row.view == 0]
    pins = read_conditioned_pins(shards, rows, data / "pins", data / "masks")
    for pin in (one.load_sample() for one in pins):
        images = bytes_to_tensor(pin.pixels[None])
        with torch.no_grad():
            assert torch.allclose(vae.encode(images).latent_dist.mode()[0], pin.latents, atol=2e-3)
        red = tensor_to_bytes(images)[0, :, pin.mask[0] > 0].float().mean(dim=1)
        assert torch.allclose(red, torch.tensor([220.0, 40, 40]), atol=12)
        assert pin.mask.any()
        assert compute_hole(pin.mask[None], 8).any()
    first = [pin.load_sample() for pin in pins if pin.row.bucket == pins[0].row.bucket]
    assert stack_samples(first)["images"].shape[0] == len(first)


def test_even_choices():
    assert select_even_runs(range(10), 4) == [0, 3, 6, 9]
    assert select_even_runs("ab", 5) == ["a", "b"]
    assert select_even_runs([], 3) == []
    assert select_even_runs(range(100), 12, runs=3) == [*range(4), *range(48, 52), *range(96, 100)]
    assert select_even_runs(range(10), 10, runs=3) == list(range(10))


def test_settings_that_leave_nothing_to_do_are_refused():
    with pytest.raises(ValueError, match="'painted_pins' in section 'train_decoder' is 0: it must be 1 or more"):
        tiny(train_decoder, painted_pins=0)
    with pytest.raises(ValueError, match=r"'train_decoder': parallel is \"fsdp\": the decoder's blocks"):
        tiny(train_decoder, "training", parallel="fsdp")
