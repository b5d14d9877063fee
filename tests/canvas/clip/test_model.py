from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import open_clip
import pytest
import torch

from canvas.clip.model import TextTower, build_clip, build_clip_config, compute_text_widths, encode_prompts, save_clip
from canvas.clip.spec import ClipSpec, TextSpec
from lifecycle.declare.params import read_section
from tests.canvas import tiny

VIT_L = dataclasses.replace(
    tiny.CLIP,
    embed_dim=768,
    image_size=224,
    patch_size=14,
    vision_width=1024,
    vision_layers=24,
    vision_head_width=64,
    vision_mlp_ratio=4.0,
    text_width=768,
    text_layers=12,
    text_heads=12,
    context_length=77,
)
VIT_BIG_G = dataclasses.replace(
    VIT_L,
    embed_dim=1280,
    quick_gelu=False,
    vision_width=1664,
    vision_layers=48,
    vision_head_width=104,
    vision_mlp_ratio=4.9231,
    text_width=1280,
    text_layers=32,
    text_heads=20,
    pad_with_end=False,
)


@pytest.fixture(scope="module")
def clips() -> list[open_clip.CLIP]:
    torch.manual_seed(0)
    return [build_clip(tiny.CLIP).eval(), build_clip(tiny.OTHER_CLIP).eval()]


@pytest.mark.parametrize(("spec", "name"), [(VIT_L, "ViT-L-14-quickgelu"), (VIT_BIG_G, "ViT-bigG-14")])
def test_full_size_is_open_clips_own(spec: ClipSpec, name: str):
    stock = {**open_clip.get_model_config(name)}
    ours = build_clip_config(spec)
    assert {"quick_gelu": False, **stock} == {
        **ours,
        "vision_cfg": {key: ours["vision_cfg"][key] for key in stock["vision_cfg"]},
        "text_cfg": {key: ours["text_cfg"][key] for key in stock["text_cfg"]},
    }


def test_sdxl_text_widths():
    assert compute_text_widths(TextSpec(first=VIT_L, second=VIT_BIG_G, t5=None)) == (2048, 1280)


def test_open_clip_loads_what_is_saved(clips, tmp_path: Path):
    save_clip(clips[0], tiny.CLIP, tmp_path)
    again = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    images, tokens = torch.rand(2, 3, 16, 16), open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a", "b c"])
    assert tokens.shape == (2, 12)
    for ours, stock in zip(clips[0](images, tokens), again(images, tokens), strict=True):
        assert torch.equal(ours, stock)
    assert {file.name for file in tmp_path.iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors"}
    started = build_clip(dataclasses.replace(tiny.CLIP, init_from=str(tmp_path)))
    assert torch.equal(started.token_embedding.weight, clips[0].token_embedding.weight)


@pytest.mark.parametrize("from_weights", [False, True])
def test_patches_are_hidden_in_training_alone(clips, tmp_path: Path, from_weights: bool):
    save_clip(clips[0], tiny.CLIP, tmp_path)
    hiding = dataclasses.replace(tiny.CLIP, vision_patch_dropout=0.5, init_from=str(tmp_path) if from_weights else None)
    clip = build_clip(hiding)
    seen: list[int] = []
    clip.visual.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    images = torch.rand(2, 3, 16, 16)
    clip.train().encode_image(images)
    clip.eval()
    assert torch.equal(clip.encode_image(images), clip.encode_image(images))
    assert seen == [1 + 2, 1 + 4, 1 + 4]  # the class token and patches


def test_weights_of_another_size_are_refused(clips, tmp_path: Path):
    save_clip(clips[0], tiny.CLIP, tmp_path)
    with pytest.raises(ValueError, match=r"has .* the params say .*make the clip section agree"):
        build_clip(dataclasses.replace(tiny.OTHER_CLIP, init_from=str(tmp_path)))


PUBLIC = {  # sizes of tiny.public_sdxl's towers
    "text_encoder": dataclasses.replace(tiny.CLIP, text_heads=4, text_layers=3),
    "text_encoder_2": dataclasses.replace(tiny.OTHER_CLIP, text_width=32, text_heads=4, text_layers=3, embed_dim=32),
}


def _public_spec(root: Path, folder: str, **changes: object) -> ClipSpec:
    return dataclasses.replace(PUBLIC[folder], init_from=str(root / folder), **changes)


def test_starts_from_the_text_encoders_of_a_public_sdxl_directory(tmp_path: Path):
    """Hidden states and pooled text as stock SDXL pipelines read them."""
    public = tiny.public_sdxl(tmp_path)
    specs = [_public_spec(tmp_path, folder) for folder in PUBLIC]
    with pytest.warns(UserWarning, match="has no image tower: it is random"):
        towers = [TextTower.from_clip(build_clip(spec), spec) for spec in specs]
    texts = ["a red mug, forest", "shoes"]
    with torch.no_grad():
        stock = [
            encoder(tower.tokenize(texts), output_hidden_states=True)
            for encoder, tower in zip((public.text_encoder, public.text_encoder_2), towers, strict=True)
        ]
    states, pooled = encode_prompts(towers, texts)
    wanted = torch.cat([output.hidden_states[-2] for output in stock], dim=-1)
    torch.testing.assert_close(states, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, stock[1].text_embeds, rtol=0, atol=1e-5)
    assert states.std() > 0.01 < pooled.std()


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("text_encoder", {"text_heads": 2}, "has text_heads 4, the params say 2"),
        ("text_encoder", {"quick_gelu": False}, "has quick_gelu True, the params say False"),
        ("text_encoder", {"text_layers": 2}, r"has transformer.resblocks.2.* the params say none"),
        ("text_encoder_2", {"embed_dim": 16}, r"has text_projection \[32, 32\], the params say \[32, 16\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no image tower")
def test_public_text_encoders_of_another_size_are_refused(tmp_path: Path, folder, change, message):
    tiny.public_sdxl(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_clip(_public_spec(tmp_path, folder, **change))


@pytest.mark.parametrize("source", ["nowhere", "ViT-B-32:no-such-tag", "/no/such/dir"])
def test_unknown_weights_are_named(source: str):
    with pytest.raises(ValueError, match=f"'{source}' is neither"):
        build_clip(dataclasses.replace(tiny.CLIP, init_from=source))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_layers": 1}, "'text_layers' .* is 1"),
        ({"text_heads": 3}, "cannot be split into 3"),
        ({"vision_head_width": 24}, "no multiple of head width 24"),
        ({"patch_size": 5}, "no multiple of patch_size 5"),
        ({"vision_patch_dropout": 1.0}, r"'vision_patch_dropout' .* is 1\.0"),
    ],
)
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        read_section(ClipSpec, "clip", {"clip": dataclasses.asdict(tiny.CLIP) | change})


def test_tower_gives_what_open_clip_gives(clips):
    """Hidden states after the last block but one, pooled text as `encode_text`."""
    clip, tower = clips[1], TextTower.from_clip(clips[1], tiny.OTHER_CLIP)
    tokens = tower.tokenize(["a red mug, forest", "shoes"])
    assert torch.equal(tokens, open_clip.SimpleTokenizer(context_length=12)(["a red mug, forest", "shoes"]))
    with torch.no_grad():
        states, pooled = tower(tokens)
        x = clip.token_embedding(tokens) + clip.positional_embedding
        x = clip.transformer.resblocks[0](x, attn_mask=clip.attn_mask)
        torch.testing.assert_close(states, x)
        torch.testing.assert_close(pooled, clip.encode_text(tokens))


def test_padding_with_end_of_text_as_openai(clips):
    tower = TextTower.from_clip(clips[0], tiny.CLIP)
    tokens = tower.tokenize(["shoes"])[0].tolist()
    end = tower.tokenizer.eot_token_id
    assert tokens[2:] == [end] * 10
    assert end not in tokens[:2]


def test_tower_saves_and_loads(clips, tmp_path: Path):
    tower = TextTower.from_clip(clips[0], tiny.CLIP)
    tower.save_pretrained(tmp_path)
    again = TextTower.from_pretrained(tmp_path)
    for ours, loaded in zip(tower(tower.tokenize(["a b"])), again(again.tokenize(["a b"])), strict=True):
        assert torch.equal(ours, loaded)
    assert not any("visual" in name for name, _ in again.named_parameters())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "TextTower"


def test_towers_stand_side_by_side(clips):
    towers = [TextTower.from_clip(clip, spec) for clip, spec in zip(clips, (tiny.CLIP, tiny.OTHER_CLIP), strict=True)]
    states, pooled = encode_prompts(towers, ["a mug", "a shoe in the forest", "a mug"])
    width, pooled_width = compute_text_widths(TextSpec(first=tiny.CLIP, second=tiny.OTHER_CLIP, t5=None))
    assert states.shape == (3, 12, width)
    assert pooled.shape == (3, pooled_width)
    assert torch.equal(states[0], states[2])
    assert not torch.allclose(states[0], states[1])
    assert torch.equal(states[:, :, :32], towers[0](towers[0].tokenize(["a mug", "a shoe in the forest", "a mug"]))[0])


def test_towers_of_different_lengths_are_refused(clips):
    longer = dataclasses.replace(tiny.OTHER_CLIP, context_length=20)
    towers = [TextTower.from_clip(clips[0], tiny.CLIP), TextTower.from_clip(build_clip(longer), longer)]
    with pytest.raises(ValueError, match=r"context lengths \[12, 20\]"):
        encode_prompts(towers, ["a"])


def test_lengths_are_checked_in_the_params():
    with pytest.raises(ValueError, match="context_length is 12 and 20"):
        TextSpec(first=tiny.CLIP, second=dataclasses.replace(tiny.OTHER_CLIP, context_length=20), t5=None)


def test_what_does_not_fit_is_told(clips):
    tower = TextTower.from_clip(clips[0], tiny.CLIP)
    assert tower.get_overflow("one two three") == ""
    assert tower.get_overflow("one two three four five six seven eight nine ten eleven twelve") == "eleven twelve"
    assert tower.get_overflow("In 2024, 1 2 3 4 5 6 a CAFÉ, für Übermut 12345") == "5 6 a CAFÉ, für Übermut 12345"
    assert tower.get_overflow("x" * 500) == "x" * 500, "a word is quoted whole, not letter by letter"


def test_full_size_towers_have_clips_number_of_parameters():
    with torch.device("meta"):
        counts = []
        for spec in (VIT_L, VIT_BIG_G):
            clip = build_clip(spec)
            counts.append(sum(p.numel() for name, p in clip.named_parameters() if not name.startswith("visual")) - 1)
    # transformers' CLIPTextModel (123,060,480) with projection (768 x 768); CLIPTextModelWithProjection of SDXL
    assert counts == [123_060_480 + 768 * 768, 694_659_840]
