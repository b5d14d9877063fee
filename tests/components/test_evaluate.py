"""Candidates that differ as planned get the scores that tell them apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from canvas.filters.quality import measure_quality
from canvas.inference.product import build_masked_product, composite_pixels
from canvas.pins import tables
from canvas.pins.images import decode_image, encode_png
from canvas.pins.masks import decode_mask
from canvas.reward.model import ProductImages
from canvas.reward.preference import fetch_reward
from canvas.segmenter.model import build_segmenter
from canvas.segmenter.spec import UNetSpec
from components.evaluate import evaluate
from evaluation.judges.references import compute_files_digest
from lifecycle.declare.stage import Input, Output
from lifecycle.workspace.digest import digest
from tests.canvas.public_models import write_clip
from tests.canvas.reward.test_model import build_tiny_reward
from tests.components.generator_parts import write_towers
from tests.components.generator_stages import run as run_stage
from tests.components.mugs import SCENES, tiny, write_catalogue
from tests.components.sidecars import write_sidecars
from tests.evaluation.judges.test_references import write_segmenter

Row = dict[str, Any]
DIGESTS = {"challenger": "c" * 32, "champion": "b" * 32, "paste": None}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    artifacts = root / "artifacts"
    artifacts.mkdir()
    write_catalogue(artifacts)
    write_sidecars(artifacts)
    measure(artifacts)
    write_towers(root / "models" / "clip", tiny(evaluate)["text"])
    build_segmenter(UNetSpec(image_size=64, channels=(8, 8, 8, 16))).save(root / "models" / "segmenter")
    build_tiny_reward().save_pretrained(root / "models" / "reward")
    run_stage("train_judges", root)
    (root / "champion").mkdir()
    (root / "champion" / "champion.json").write_text('{"version": null}')
    rows = candidates(artifacts)
    tables.write(artifacts / "candidates", [pa.Table.from_pylist(rows, tables.CANDIDATES)], tables.CANDIDATES)
    return root


def measure(artifacts: Path) -> None:
    """Give the kept table the filter's measures."""
    pictures = {row["pin_id"]: row["image"] for row in tables.read(artifacts / "pins").to_pylist()}
    rows = tables.read(artifacts / "kept").to_pylist()
    for row in rows:
        if row["kept"]:
            quality = asdict(measure_quality(decode_image(pictures[row["pin_id"]])))
            row |= {name: quality[name] for name in tables.TRAINING_STATISTICS.names if name != "pin_id"}
    shutil.rmtree(artifacts / "kept")
    tables.write(artifacts / "kept", [pa.Table.from_pylist(rows, tables.KEPT)], tables.KEPT)


def candidates(artifacts: Path) -> list[Row]:
    """The challenger paints the prompted scene's colour, each seed with noise of its own; the champion the other
    scene's, always with one noise; what is pasted covers the product by a byte. Two seeds of two products in two
    scenes; of the challenger's the first is certified in the forest, and fails in the lobby."""
    masks = {row["pin_id"]: row["mask"] for row in tables.read(artifacts / "masks").to_pylist() if row["mask"]}
    rows = []
    for pin in tables.read(artifacts / "pins").to_pylist()[13:15]:
        original, mask = decode_image(pin["image"]), masks[pin["pin_id"]]
        product = build_masked_product(original, decode_mask(mask))
        for scene, (words, colour) in SCENES.items():
            (other,) = (shade for name, (_, shade) in SCENES.items() if name != scene)
            for seed in range(2):
                noises = [np.random.default_rng(turn).normal(0, 12, product.pixels.shape) for turn in (seed, 0)]
                for model, shade in (("challenger", colour), ("champion", other), ("paste", colour)):
                    own = np.clip(np.array(shade) + noises[model == "champion"], 0, 255).astype(np.uint8)
                    picture = composite_pixels(own, product)
                    if model == "paste":
                        picture[product.core] += 1
                    rows.append(
                        {
                            "candidate_id": f"{pin['pin_id']}.{scene}.{seed}.{model}",
                            "item_id": f"{pin['pin_id']}.{scene}",
                            "pin_id": pin["pin_id"],
                            "category": "Mugs",
                            "prompt": f"red mug, {words}",
                            "scene": scene,
                            "seed": seed,
                            "model": model,
                            "digest": DIGESTS[model],
                            "image": encode_png(Image.fromarray(picture)),
                            "mask": mask,
                            "certified": scene == "forest" if model == "challenger" and seed == 0 else None,
                        }
                    )
    return rows


def run(root: Path, out: Path, **changes: Any) -> list[Row]:
    """The rows of an evaluation that is written to `out`."""
    ends: dict[str, Any] = {key: Input(root / artifact.path) for key, artifact in evaluate.inputs.items()}
    for key, artifact in evaluate.outputs.items():
        (out / artifact.path).parent.mkdir(parents=True, exist_ok=True)
        ends[key] = Output(out / artifact.path)
    evaluate(**tiny(evaluate, **changes), **ends)
    return list(tables.read(out / "artifacts" / "evaluation").to_pylist())


@pytest.fixture(scope="module")
def made(root: Path) -> tuple[Path, list[Row]]:
    return root, run(root, root)


def figures(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "reports" / "evaluate" / "metrics.json").read_text()))


def of(rows: list[Row], model: str, name: str) -> list[Any]:
    return [row[name] for row in rows if row["model"] == model]


def test_every_candidate_is_a_row_with_its_picture(made: tuple[Path, list[Row]]) -> None:
    root, rows = made
    asked = tables.read(root / "artifacts" / "candidates").to_pylist()
    assert [row["candidate_id"] for row in rows] == [row["candidate_id"] for row in asked]
    assert [row["image"] for row in rows] == [row["image"] for row in asked]
    scored = {*tables.EVALUATION.names} - {"digest", "certified", "certificates_failed"}
    assert not [name for row in rows for name in scored if row[name] is None]


def test_what_is_planted_is_seen(made: tuple[Path, list[Row]]) -> None:
    _, rows = made
    assert set(of(rows, "challenger", "scene_right")) == {1.0}
    assert set(of(rows, "champion", "scene_right")) == {0.0}
    assert set(of(rows, "challenger", "core_max_abs_diff")) == {0.0}
    assert set(of(rows, "paste", "core_max_abs_diff")) == {1.0}
    assert max(of(rows, "champion", "diversity")) == 0.0  # both seeds are one picture
    assert min(of(rows, "challenger", "diversity")) > 0.0
    assert {row["mask_size"] for row in rows} == {"medium"}  # 900 of about 5,100 pixels
    for name in ("defects", "fidelity", "aesthetics", "overall"):
        assert all(0 <= row[f"reward_{name}"] <= 1 for row in rows)
    assert all(-1 <= row["agreement"] <= 1 for row in rows)
    assert {row["defective"] for row in rows} <= {0.0, 1.0}


def test_figures(made: tuple[Path, list[Row]]) -> None:
    root, rows = made
    metrics = figures(root)
    for model in DIGESTS:
        assert metrics[model]["pictures"] == 8
        assert metrics[model]["items"] == 4
        assert metrics[model]["agreement_low"] <= metrics[model]["agreement"] <= metrics[model]["agreement_high"]
        assert {"fid", "fid_error", "kid", "kid_error", "cmmd", "cmmd_error"} <= metrics[model].keys()
        assert 1 <= metrics[model]["vendi"] <= 8
    assert metrics["challenger"]["reward_overall"] == pytest.approx(np.mean(of(rows, "challenger", "reward_overall")))
    assert metrics["paste"]["core_max_abs_diff_worst"] == 1
    assert metrics["challenger"]["core_max_abs_diff_worst"] == 0
    assert metrics["challenger"]["certificates_failed"] == 0.5  # in one of two scenes
    assert "certificates_failed" not in metrics["paste"]
    assert set(metrics["slices"]["scene"]) == set(SCENES)
    assert metrics["slices"]["scene"]["forest"]["items"] == 2
    assert metrics["judge"]["scene_accuracy_real"] == 1.0
    instruments = metrics["instruments"]
    assert instruments["frozen"] == {"segmenter": 0, "text_image": 0}
    assert 0 <= instruments["reward"]["overall_accuracy"] <= 1
    assert 0 <= instruments["segmenter"]["iou"] <= 1
    assert 0 <= instruments["defects"]["recall_low"] <= instruments["defects"]["recall"] <= 1
    assert metrics["challenger"]["defective"] == pytest.approx(np.mean(of(rows, "challenger", "defective")))
    assert "kid_engaged" not in metrics["challenger"]  # nothing is known of engagement
    assert metrics["drift"]["columns"] == 4
    assert metrics["drift"]["share"] == metrics["drift"]["drifted"] / 4


def test_pages_name_what_got_worse(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, _ = made
    better = (root / "reports" / "evaluate" / "report.html").read_text()
    assert "scene_right, forest" not in better
    assert "against the champion" in better
    swapped = {"challenger": "champion", "champion": "challenger", "paste": "paste"}
    rows = [row | {"model": swapped[row["model"]]} for row in candidates(root / "artifacts")]
    for part in ("models", "champion"):
        (tmp_path / part).symlink_to(root / part)
    shutil.copytree(root / "artifacts", tmp_path / "artifacts", ignore=shutil.ignore_patterns("candidates"))
    for name in ("evaluation", "training_statistics"):
        shutil.rmtree(tmp_path / "artifacts" / name)
    table = pa.Table.from_pylist(rows, tables.CANDIDATES)
    tables.write(tmp_path / "artifacts" / "candidates", [table], tables.CANDIDATES)
    run(tmp_path, tmp_path)
    page = (tmp_path / "reports" / "evaluate" / "report.html").read_text()
    worse = page[page.index("What got worse") : page.index('id="slices"')]
    assert "scene_right, forest" in worse
    assert "diversity, lobby" in worse
    assert "<html" in (tmp_path / "reports" / "evaluate" / "drift.html").read_text()


def test_drift_is_from_what_the_champion_learnt_from(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, _ = made
    known = tables.read(root / "artifacts" / "training_statistics")
    assert known.num_rows == 12
    for part in root.iterdir():
        if part.name not in ("champion", "reports"):
            (tmp_path / part.name).symlink_to(part)
    shutil.copytree(root / "champion", tmp_path / "champion")
    bright = known.to_pandas().assign(brightness=lambda frame: frame.brightness + 10, sharpness=0.5)
    schema = tables.TRAINING_STATISTICS
    table = pa.Table.from_pandas(bright, schema, preserve_index=False)
    tables.write(tmp_path / "champion" / "training_statistics", [table], schema)
    out = tmp_path / "out"
    run(tmp_path, out)
    assert figures(out)["drift"]["distance"]["brightness"] > figures(root)["drift"]["distance"]["brightness"] + 1


def test_references_score_both_sides_whatever_the_challenger_brings(
    made: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    root, rows = made
    own = {"repository": str(write_segmenter(tmp_path / "judge", seed=5)), "background": []}
    write_clip(tmp_path / "clip")
    clip = {"repository": str(tmp_path / "clip")}
    references: dict[str, Any] = {"segmenter": own, "text_image": clip}
    for spec in references.values():
        spec["digest"] = compute_files_digest(Path(spec["repository"]))
    other = tmp_path / "other"
    for part in root.iterdir():
        if part.name not in ("models", "reports"):
            (other / part.name).parent.mkdir(exist_ok=True)
            (other / part.name).symlink_to(part)
    shutil.copytree(root / "models", other / "models")
    shutil.rmtree(other / "models" / "segmenter")
    write_segmenter(other / "models" / "segmenter", seed=9)
    judged = run(root, tmp_path / "first", references=references)
    again = run(other, tmp_path / "second", references=references)
    assert figures(tmp_path / "first")["instruments"]["frozen"] == {"segmenter": 1, "text_image": 1}
    for name in ("extension", "erosion", "agreement"):
        for model in DIGESTS:
            assert of(judged, model, name) == of(again, model, name)
            assert of(judged, model, name) != of(rows, model, name)


def test_any_reward_scores_what_it_answers(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, ours = made
    for part in root.iterdir():
        if part.name not in ("models", "reports"):
            (tmp_path / part.name).symlink_to(part)
    shutil.copytree(root / "models", tmp_path / "models", ignore=shutil.ignore_patterns("reward"))
    write_clip(tmp_path / "models" / "reward")
    rows = run(tmp_path, tmp_path / "out")
    expected = fetch_reward(tmp_path / "models" / "reward")
    for row, own in zip(rows, ours, strict=True):
        assert [row[f"reward_{name}"] for name in ("defects", "fidelity", "aesthetics")] == [None] * 3
        assert row["reward_overall"] != own["reward_overall"]
        assert row["agreement"] == own["agreement"]
    images = torch.from_numpy(np.asarray(decode_image(rows[0]["image"]))).permute(2, 0, 1)[None]
    product = ProductImages(images, torch.ones(1, 1, *images.shape[-2:]))
    scores = expected.score(images, product, [rows[0]["prompt"]])
    assert rows[0]["reward_overall"] == pytest.approx(float(scores["overall"]), abs=1e-4)
    instruments = figures(tmp_path / "out")["instruments"]["reward"]
    assert instruments["overall_accuracy"] == instruments["prompt_accuracy"]


def test_the_same_inputs_give_the_same_bytes(made: tuple[Path, list[Row]], tmp_path: Path) -> None:
    root, _ = made
    run(root, tmp_path)
    for artifact in ("evaluation", "training_statistics"):
        assert digest(tmp_path / "artifacts" / artifact) == digest(root / "artifacts" / artifact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_pins": 0}, "'real_pins' in section 'evaluate' is 0: it must be 1 or more"),
        ({"distance_side": 100}, "distance_side' in section 'evaluate' is 100"),
        ({"mask_sizes": [0.5, 0.2]}, "shares of the image that rise"),
        ({"slices": ["board"]}, "'evaluate.slices' is .*: input should be 'category'"),
    ],
)
def test_params_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(evaluate, **changes)
