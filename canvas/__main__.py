"""`python -m canvas`: generate backgrounds round a product, verify one, assemble a model of public parts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from canvas.layout.options import add_layout_options, read_layout
from canvas.light.spec import Mode
from canvas.options import check_device, check_model, check_numbers, check_out
from canvas.pins.images import DEFAULT_LIMITS, ImageLimits
from canvas.styles.options import add_style_options
from canvas.terminal import ignore_broken_pipe, print_note, print_notes, strip_controls
from canvas.train.spec import Precision
from canvas.upscaler.spec import FACTORS

if TYPE_CHECKING:
    from PIL import Image

    from canvas.inference.pipeline import CanvasPipeline
    from canvas.light.scene import ImageCertificate
    from canvas.reward.preference import Reward


IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")

MAX_PIXEL_BYTES = 8
"""Bytes of the longest pixel that formats know: 16 bits in each of four channels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _build_parser().parse_args(arguments)
    try:
        with ignore_broken_pipe():
            for line in COMMANDS[options.command](options):
                print(strip_controls(str(line)))
    except (ValueError, OSError) as error:
        print(strip_controls(f"canvas {options.command}: {error}"), file=sys.stderr)
        return 1
    return 0


def generate_files(options: argparse.Namespace) -> list[Path]:
    """Write images named after the product and the candidate's seed; return their paths, the best of a choice first.

    A file that is there is kept, and the image gets the next free name, unless `--overwrite` asks for its place.
    """
    from canvas.inference.files import check_format, replace_image, save_beside
    from canvas.inference.product import PHOTOGRAPH
    from canvas.inference.provenance import compute_model_digest, describe_generation
    from canvas.inference.scene.build import check_scene_input

    if options.out.is_file() or (options.out.suffix.lower() in IMAGE_SUFFIXES and not options.out.is_dir()):
        raise ValueError(f"--out {options.out} looks like a file: name a folder, images are named after the product")
    check_numbers(options)
    # A file of one's own may be as long as its pixels ask for.
    limits = ImageLimits(
        max_bytes=DEFAULT_LIMITS.max_bytes + MAX_PIXEL_BYTES * options.max_pixels, max_pixels=options.max_pixels
    )
    layout = read_layout(options)
    products = [_read_product(path, limits) for path in options.product]
    size = products[0].size if layout is None else (layout.canvas[1], layout.canvas[0])
    check_format(f"--format {options.format}", options.format, size)
    masks = _read_masks(options.mask, limits) if options.mask else None
    check_scene_input(products, masks, layout)

    from canvas.inference.style_options import encode_style, read_style

    style = read_style(options, limits)
    if style is None and options.prompt is None:
        raise ValueError("say what to generate with --prompt, --style, --board or --style-cluster")
    check_device(options.device)
    check_out(options, [_name_image(options, options.seed + number) for number in range(options.candidates)])
    check_model(options, products, masks, layout)
    reward = _load_reward(options)

    from canvas.inference.pipeline import CanvasPipeline

    pipeline = CanvasPipeline.from_pretrained(options.model, trust_remote_code=options.trust_remote_code)
    pipeline.merge_lora()
    pipeline.to(options.device)
    pipeline.set_precision(options.precision)
    settings = {
        "style": encode_style(options, pipeline, style),
        "mask": masks,
        "layout": layout,
        "mode": options.mode,
        "shadow": options.shadow,
        "reflection": options.reflection,
        "negative_prompt": options.negative_prompt,
        "guidance_scale": options.guidance,
        "guidance_rescale": options.guidance_rescale,
        "guidance_stop": options.guidance_stop,
        "autoguidance_scale": options.autoguidance,
        "num_inference_steps": options.steps,
        "scheduler": options.scheduler,
        "upscale": options.upscale,
        "seed_by_product": options.seed_by_product,
    }
    images, seeds, origin, certificates = _generate_images(options, pipeline, reward, products, settings)
    how = "photograph kept" if origin == PHOTOGRAPH else f"product cut out by its {origin}"
    print(how, file=sys.stderr)
    paths, model_digest = [], compute_model_digest(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    for number, (seed, image) in enumerate(zip(seeds, images, strict=True)):
        certificate = certificates[number] if certificates else None
        path = options.out / _name_image(options, seed)
        provenance = None
        if not options.no_provenance:
            provenance = describe_generation(
                model_digest,
                seed=seed,
                seed_by_product=options.seed_by_product,
                prompt=options.prompt,
                safety=pipeline.safety.describe(options.prompt),
                layout=None if layout is None else layout.words,
                shadow=options.shadow,
                reflection=options.reflection,
            )
        if options.overwrite:
            replace_image(image, path, provenance, certificate)
        elif (other_path := save_beside(image, path, provenance, certificate)) != path:
            print_note(f"{path} was there and is kept, --overwrite would replace it")
            path = other_path
        paths.append(path)
    return paths


def _name_image(options: argparse.Namespace, seed: int) -> str:
    return f"{'+'.join(path.stem for path in options.product)}-{seed}.{options.format}"


def _read_product(path: Path, limits: ImageLimits) -> Image.Image:
    """Read a product image, and say what was done to its pixels."""
    from canvas.inference.files import read_image_file

    decoded = read_image_file(path, limits)
    if decoded.conversions:
        converted = " and ".join(decoded.conversions)
        print(f"product converted from {converted} to 8-bit sRGB: its pixels come back as converted", file=sys.stderr)
    print_notes(path, decoded.notes)
    return decoded.image


def _read_masks(paths: list[Path], limits: ImageLimits) -> list[Image.Image | None]:
    """Read masks, and say what was wrong with them."""
    from canvas.inference.files import read_mask_files

    decoded = read_mask_files(paths, limits)
    for path, mask in zip(paths, decoded, strict=True):
        if mask is not None:
            print_notes(path, mask.notes)
    return [None if mask is None else mask.image for mask in decoded]


def assemble_files(options: argparse.Namespace) -> list[str]:
    """Write a model of public parts; return a line about each."""
    from canvas.inference.assembly.public_parts import write_public_pipeline

    return write_public_pipeline(options.parts, options.out)


def verify_image(options: argparse.Namespace) -> list[str]:
    """Return what holds of an image; ValueError for the first law that it breaks."""
    from canvas.verification import verify_file

    limits = ImageLimits(max_bytes=DEFAULT_LIMITS.max_bytes, max_pixels=options.max_pixels)
    return verify_file(
        options.image, options.product, mask=options.mask, certificate=options.certificate, limits=limits
    ).describe()


def _load_reward(options: argparse.Namespace) -> Reward | None:
    """Load the model that chooses; None: all candidates are written."""
    if options.top is None:
        if options.reward is not None or options.drop_early:
            raise ValueError("--reward and --drop-early choose among candidates: say with --top how many to keep")
        return None

    from canvas.inference.selection import check_top
    from canvas.reward.preference import PROMPT_MISSING, fetch_reward
    from canvas.reward.spec import REWARD_FOLDER

    check_top(options.top, options.candidates)
    model_reward = options.model / REWARD_FOLDER
    if options.reward is None and not model_reward.is_dir():
        raise ValueError(f"{options.model} holds no reward: name a directory or hub id of one with --reward")
    reward = fetch_reward(options.reward or model_reward)
    if options.prompt is None and reward.needs_prompt:
        raise ValueError(PROMPT_MISSING)
    return reward


def _generate_images(
    options: argparse.Namespace,
    pipeline: CanvasPipeline,
    reward: Reward | None,
    products: list[Image.Image],
    settings: dict[str, Any],
) -> tuple[list[Image.Image], list[int], str, list[ImageCertificate]]:
    """Return images, the seed of each, what cut the product out, and soft images' certificates: all candidates, or with
    --top the best."""
    if reward is None:
        output = pipeline(products, options.prompt, num_candidates=options.candidates, seed=options.seed, **settings)
        seeds = [options.seed + number for number in output.candidates]
        return output.images, seeds, output.product.origin, output.certificates

    from canvas.inference.selection import HALVING, select_best

    best = select_best(
        pipeline,
        reward.to(options.device),
        products,
        options.prompt,
        candidates=options.candidates,
        top=options.top,
        seed=options.seed,
        drops=HALVING if options.drop_early else (),
        **settings,
    )
    for seed, scores in zip(best.seeds, best.scores, strict=True):
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.items()), file=sys.stderr)
    print(f"{best.cost.denoiser_calls} denoiser calls, {best.cost.scored_images} images scored", file=sys.stderr)
    return best.images, best.seeds, best.product.origin, best.certificates


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="canvas", description="Product-preserving background generation.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="generate backgrounds round a product; its pixels stay as they are")
    command.add_argument("--model", type=Path, required=True, help="directory of the assembled pipeline")
    command.add_argument(
        "--product",
        type=Path,
        action="append",
        required=True,
        help="RGBA cut-out, or RGB with --mask, or RGB alone; again for each further one of --layout",
    )
    command.add_argument(
        "--mask",
        type=Path,
        action="append",
        help="white, or opaque where it has one colour, = product; of its size; one a product, - for a cut-out",
    )
    command.add_argument(
        "--mode", choices=get_args(Mode), default="hard", help="soft: the product in the scene's light, certified"
    )
    command.add_argument(
        "--shadow",
        type=float,
        default=0.0,
        help="strength, 0 to 1, of the shadow that the product casts on the background; none, if not given",
    )
    command.add_argument(
        "--reflection",
        type=float,
        default=0.0,
        help="likewise, of the product's mirror image on the background below it, as on a glossy floor",
    )
    command.add_argument("--prompt", help="what to generate; may be left out where a style is given")
    add_style_options(command)
    add_layout_options(command)
    command.add_argument("--negative-prompt")
    command.add_argument("--candidates", type=int, default=4)
    command.add_argument("--top", type=int, help="keep only so many, those that the reward likes best")
    command.add_argument(
        "--reward",
        help="another reward than the one in --model: directory or hub id OWNER/NAME@REVISION of what train_reward "
        "wrote, or of a CLIP, SigLIP or PickScore",
    )
    command.add_argument(
        "--drop-early", action="store_true", help="with --top: do not generate weak candidates to the end"
    )
    command.add_argument(
        "--steps", type=int, help="as many as the model recommends, if not given; so are guidance and scheduler"
    )
    command.add_argument("--guidance", type=float, help="guidance scale; 1: none")
    command.add_argument("--guidance-rescale", type=float, default=0.0, help="0, not at all, to 1")
    command.add_argument("--guidance-stop", type=float, help="share of the steps that is guided")
    command.add_argument(
        "--autoguidance", type=float, help="how far to lead away from what the denoiser says without its LoRAs; 0: not"
    )
    command.add_argument("--scheduler", help="euler, heun, dpm++ (flow); ddim, euler, dpm++ (eps, v)")
    command.add_argument(
        "--upscale",
        type=int,
        choices=(1, *FACTORS),
        help="how far the model's upscaler enlarges backgrounds; as far as the product has pixels, if not given",
    )
    command.add_argument("--seed", type=int, default=0, help="of the first candidate; the others count up")
    command.add_argument(
        "--seed-by-product",
        action="store_true",
        help="noise that depends on the product, too: one seed then gives different products different backgrounds",
    )
    command.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code that the model's public segmenter brings"
    )
    command.add_argument("--device", default="cpu")
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="of the denoiser; auto: bf16 where the device multiplies it",
    )
    command.add_argument("--format", type=str.lower, default="png", help="png or webp (lossless)")
    command.add_argument("--out", type=Path, default=Path(), help="folder of the images, by default this one")
    command.add_argument(
        "--overwrite", action="store_true", help="replace images of the same name; without it they are kept"
    )
    command.add_argument(
        "--max-pixels",
        type=int,
        default=DEFAULT_LIMITS.max_pixels,
        help="width x height of the images given, at most; %(default)s if not given",
    )
    command.add_argument(
        "--no-provenance",
        action="store_true",
        help="do not write model, seed and prompt into the files",
    )
    command = commands.add_parser("verify", help="prove that an image shows a product, exact or under a lawful gain")
    command.add_argument("image", type=Path, help="an image that generate wrote")
    command.add_argument(
        "--product",
        type=Path,
        action="append",
        required=True,
        help="the product image that it was made of; each of several",
    )
    command.add_argument("--mask", type=Path, action="append", help="its mask, if one was given then; likewise")
    command.add_argument("--certificate", type=Path, help="if not beside the image or in its metadata")
    command.add_argument("--max-pixels", type=int, default=DEFAULT_LIMITS.max_pixels, help="as of generate")
    command = commands.add_parser("assemble", help="make a model of public parts, without training")
    command.add_argument("--from", dest="parts", type=Path, required=True, help="such as profiles/public/sdxl.yaml")
    command.add_argument("--out", type=Path, required=True, help="new folder of the model")
    return parser


COMMANDS: dict[str, Callable[[argparse.Namespace], Iterable[object]]] = {
    "generate": generate_files,
    "verify": verify_image,
    "assemble": assemble_files,
}


if __name__ == "__main__":
    sys.exit(main())
