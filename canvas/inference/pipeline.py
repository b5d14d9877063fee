"""The whole generator as one diffusers pipeline: product and prompt in, images with the product's own pixels out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FluxTransformer2DModel,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel

from canvas.checksums import write_checksums
from canvas.clip.image_tower import ImageTower
from canvas.clip.model import TextTower, Tower, check_overflow, get_overflow
from canvas.clip.t5 import T5Tower
from canvas.clip.tuning.towers import MixedTextTower
from canvas.decoder.model import ConditionalDecoder
from canvas.denoiser.adapters import attach_adapters, detach_adapters
from canvas.denoiser.family import Denoiser
from canvas.denoiser.image_prompt import AdapterConfig, has_image_prompt, set_scale
from canvas.denoiser.loading import get_family
from canvas.denoiser.lora import DEFAULT_LORA, load_lora, merge_lora
from canvas.denoiser.schedulers import build_scheduler
from canvas.denoiser.spec import DEFAULT_SAMPLING, RecommendedSampling, ReuseSpec
from canvas.inference.assembly.saved import check_saved_pipeline, rename_moved_modules
from canvas.inference.autoguidance import choose_autoguidance, get_weak_denoiser
from canvas.inference.generation.candidates import CandidateSelector, CanvasOutput, StepCallback, generate_candidates
from canvas.inference.generation.encoding import encode_scene, read_scene
from canvas.inference.generation.settings import GenerationSettings, check_request
from canvas.inference.scene.build import Images, Masks, list_images
from canvas.inference.style import StylePrompt
from canvas.layout.spec import Layout
from canvas.light.model import LightModel
from canvas.light.shadow.model import ShadowModel
from canvas.light.spec import Mode
from canvas.safety.guard import Classifier, SafetyGuard
from canvas.styles.centres import StyleCentres
from canvas.train.precision import choose_autocast_dtype
from canvas.train.spec import Precision
from canvas.upscaler.loading import AnyUpscaler
from canvas.uve.model import UveModel
from canvas.vae.model import PixelAutoencoder, get_scale_factor


class CanvasPipeline(DiffusionPipeline, StableDiffusionXLLoraLoaderMixin):  # type: ignore[misc]
    """Generate a background round a product that follows a prompt, style images, or both.

    The model works in a frame of its own size and the product's aspect. The background comes back at the product
    image's size, by an upscaler where there is one, and the product's pixels are put on it, untouched on their core.
    LoRAs of the denoiser are saved beside it in `lora/NAME/` and loaded with it, its image-prompt adapter in
    `ip_adapter/`. The adapter counts only where a style is given. Safety models, where it has some, refuse prompts and
    generated images.

    Args:
        unet: The denoiser of a pipeline of that family.
        transformer: Likewise; one of the two is given.
        text_encoder_2: The second text tower, or T5's encoder.
        tokenizer_2: Of a T5; None: there is none.
        hole_inflation: Latent cells by which the hole grows into the product, as in training.
        max_aspect: Longest side over shortest of the frames that the denoiser was trained on.
        frame_side: Pixels of the side of the square frame; None: as a UNet's sample size says.
        edge_radius: Of the guided filter that brings the segmenter's matte to full size.
        edge_epsilon: Likewise.
        image_source: What the adapter reads (canvas.denoiser.image_prompt.AdapterConfig).
        style_layers: Which layers carry style (likewise).
        sampling: Recommended settings, the fields of canvas.denoiser.spec.RecommendedSampling; None, as in models of
            before version 0.2: its DEFAULT_SAMPLING.
        parts: What the pipeline was made from, its data among it: artifact -> content digest.
        sources: Of public parts: part -> repository, commit and licence.
        bf16: Parts whose weights are stored, and loaded, in bfloat16.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->transformer->vae->decoder->upscaler"
    # lists in the base class
    _optional_components = [  # noqa: RUF012
        "unet",
        "transformer",
        "tokenizer_2",
        "decoder",
        "upscaler",
        "segmenter",
        "segmenter_processor",
        "light",
        "shadow",
        "image_tower",
        "uve",
        "style_centres",
        "prompt_safety",
        "prompt_safety_tokenizer",
        "image_safety",
        "image_safety_processor",
    ]
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL | PixelAutoencoder,
        text_encoder: TextTower | MixedTextTower,
        text_encoder_2: TextTower | MixedTextTower | T5EncoderModel,
        scheduler: SchedulerMixin,
        unet: UNet2DConditionModel | None = None,
        transformer: FluxTransformer2DModel | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
        decoder: ConditionalDecoder | None = None,
        upscaler: AnyUpscaler | None = None,
        segmenter: PreTrainedModel | None = None,
        segmenter_processor: Any = None,
        light: LightModel | None = None,
        shadow: ShadowModel | None = None,
        image_tower: ImageTower | None = None,
        uve: UveModel | None = None,
        style_centres: StyleCentres | None = None,
        prompt_safety: PreTrainedModel | None = None,
        prompt_safety_tokenizer: Any = None,
        image_safety: PreTrainedModel | None = None,
        image_safety_processor: Any = None,
        hole_inflation: int = 0,
        max_aspect: float = 1.0,
        frame_side: int | None = None,
        edge_radius: int = 4,
        edge_epsilon: float = 1e-3,
        image_source: str | None = None,
        style_layers: list[str] | None = None,
        sampling: dict[str, Any] | None = None,
        parts: dict[str, str] | None = None,
        sources: dict[str, dict[str, str]] | None = None,
        bf16: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.weak: Denoiser | None = None  # for autoguidance, once it was asked for
        if (unet is None) == (transformer is None):
            raise ValueError("a pipeline has one denoiser: give unet or transformer")
        denoiser: Denoiser = transformer if unet is None else unet
        needed = get_family(denoiser).count_inpaint_channels(vae.config["latent_channels"], get_scale_factor(vae))
        if denoiser.config["in_channels"] != needed:
            raise ValueError(
                f"the denoiser has {denoiser.config['in_channels']} input channels, inpainting latents of "
                f"{vae.config['latent_channels']} needs {needed}"
            )
        self.register_modules(
            unet=unet,
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            scheduler=scheduler,
            decoder=decoder,
            upscaler=upscaler,
            segmenter=segmenter,
            segmenter_processor=segmenter_processor,
            light=light,
            shadow=shadow,
            image_tower=image_tower,
            uve=uve,
            style_centres=style_centres,
            prompt_safety=prompt_safety,
            prompt_safety_tokenizer=prompt_safety_tokenizer,
            image_safety=image_safety,
            image_safety_processor=image_safety_processor,
        )
        self.register_to_config(
            hole_inflation=hole_inflation,
            max_aspect=max_aspect,
            frame_side=frame_side,
            edge_radius=edge_radius,
            edge_epsilon=edge_epsilon,
            image_source=image_source,
            style_layers=style_layers,
            sampling=sampling,
            parts=parts,
            sources=sources,
            bf16=bf16,
        )
        if has_image_prompt(denoiser):
            set_scale(denoiser, 0.0)

    @property
    def denoiser(self) -> Denoiser:
        """The network, whatever its family calls it."""
        return self.transformer if self.unet is None else self.unet

    @property
    def towers(self) -> tuple[Tower, Tower]:
        """What reads prompts, as `encode_prompts` takes it."""
        if self.tokenizer_2 is None:
            return self.text_encoder, self.text_encoder_2
        return self.text_encoder, T5Tower(self.text_encoder_2, self.tokenizer_2)

    @property
    def recommended_sampling(self) -> RecommendedSampling:
        """The settings that hold where a caller gives none."""
        stored = self.config["sampling"]
        return DEFAULT_SAMPLING if stored is None else RecommendedSampling.from_config(stored)

    @property
    def safety(self) -> SafetyGuard:
        """What prompts and generated images must pass."""
        return SafetyGuard(
            prompt=self.prompt_safety and Classifier(self.prompt_safety, self.prompt_safety_tokenizer),
            image=self.image_safety and Classifier(self.image_safety, self.image_safety_processor),
        )

    @torch.no_grad()
    def __call__(
        self,
        product: Images,
        prompt: str | None = None,
        *,
        style: StylePrompt | None = None,
        mask: Masks = None,
        layout: Layout | None = None,
        mode: Mode = "hard",
        shadow: float = 0.0,
        reflection: float = 0.0,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float = 0.0,
        guidance_stop: float | None = None,
        autoguidance_scale: float | None = None,
        reuse: ReuseSpec | None = None,
        num_inference_steps: int | None = None,
        num_candidates: int = 1,
        candidates_per_pass: int = 8,
        seed: int | None = None,
        seed_by_product: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        scheduler: str | None = None,
        upscale: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        selectors: Mapping[int, CandidateSelector] | None = None,
    ) -> CanvasOutput:
        """Generate `num_candidates` backgrounds round `product` that follow `prompt`, `style` or both.

        Steps, guidance, reuse and scheduler that are None are those that the model recommends.

        Args:
            product: RGBA cut-out; or RGB with `mask` of the same size; or RGB alone, which the segmenter cuts out. With
                a `layout`: one or several, later ones over earlier ones.
            prompt: What to generate, as "mug, in a forest"; None: `style` alone says it.
            style: Of canvas.inference.style; beside a prompt half of its strength counts. None: no adapter.
            mask: White = product; of several products one each, None for a cut-out.
            layout: Canvas of the image, and where products stand on it (canvas.layout.spec.build_layout); None: the
                product image's own size and place.
            mode: "hard": the product stays as it is; "soft": it takes on the scene's light, within the laws of
                canvas.light.laws, and each image has a certificate, with a layout one of each product.
            shadow: Strength, 0 to 1, of the shadow that each product casts on the background, unless its layout says
                that it floats. The product's core stays as the mode has it.
            reflection: Likewise, of the product's mirror image on the background below it; needs no network.
            negative_prompt: What not to generate; None: guidance compares with a dropped caption.
            guidance_scale: 1: no guidance; more follows the prompt closer. A denoiser that was distilled with guidance
                reads it as an input: a step is one pass, and numbers are larger, as 30.
            guidance_rescale: From 0, not rescaled, to 1, wholly.
            guidance_stop: Share of the steps, 0 to 1, that are guided.
            autoguidance_scale: How far guided steps are led away from what the denoiser says without its LoRAs; 0: not.
            reuse: What steps take over from earlier ones; counts of 1: nothing.
            num_inference_steps: Of the scheduler.
            num_candidates: How many images.
            candidates_per_pass: How many go through the denoiser at once; memory grows with it.
            seed: Candidate k draws its noise from seed + k, so it is the same image whatever `num_candidates` is.
            seed_by_product: Whether the noise depends on the product, too: at one seed different products otherwise get
                much the same background.
            generator: In place of `seed`, used as diffusers uses it.
            scheduler: A name in canvas.denoiser.schedulers.
            upscale: Factor by which the model's upscaler enlarges backgrounds, 1, 2 or 4, before they are resized to
                the product image; 1: it does not. None: as much as the product image has pixels for.
            callback_on_step_end: As in diffusers.
            selectors: Steps done -> which of a pass's images to go on with (canvas.inference.selection).

        Raises:
            ValueError: In one sentence, for input that cannot be used.
            UnsafeContentError: Likewise, for a prompt or an image that a safety model refuses.
        """
        recommended = self.recommended_sampling
        recommended_scale, recommended_stop = recommended.get_guidance(has_prompt=prompt is not None)
        settings = GenerationSettings(
            mode=mode,
            shadow=shadow,
            reflection=reflection,
            steps=recommended.steps if num_inference_steps is None else num_inference_steps,
            guidance_scale=recommended_scale if guidance_scale is None else guidance_scale,
            guidance_rescale=guidance_rescale,
            guidance_stop=recommended_stop if guidance_stop is None else guidance_stop,
            autoguidance_scale=choose_autoguidance(self, autoguidance_scale, has_prompt=prompt is not None),
            reuse=reuse or recommended.reuse,
            candidates=num_candidates,
            candidates_per_pass=candidates_per_pass,
            seed=seed,
            seed_by_product=seed_by_product,
            generator=generator,
            scheduler=scheduler,
            upscale=upscale,
        )
        check_request(self, settings, prompt=prompt, negative_prompt=negative_prompt, style=style, layout=layout)
        scene = read_scene(self, product, mask, layout, mode)
        encoded = encode_scene(
            self,
            scene,
            prompt,
            negative_prompt if settings.guidance_scale != 1 else None,
            style and style.scale_for_prompt(prompt),
            layout=layout,
        )
        output = generate_candidates(
            self,
            encoded,
            settings,
            list_images(product),
            callback=callback_on_step_end,
            selectors=selectors or {},
        )
        self.maybe_free_model_hooks()
        return output

    def get_scheduler(self, name: str | None = None) -> SchedulerMixin:
        """Return the scheduler of that name (canvas.denoiser.schedulers); None: the one that the model recommends."""
        name = name or self.recommended_sampling.scheduler
        return self.scheduler if name is None else build_scheduler(name, self.scheduler)

    def merge_lora(self) -> None:
        """Fold the denoiser's LoRAs into its weights: fewer layers a step. One without them stays for autoguidance."""
        if self.recommended_sampling.autoguidance_scale:
            get_weak_denoiser(self)
        merge_lora(self.denoiser)

    def load_lora_weights(self, source: Any, adapter_name: str | None = None, **options: Any) -> None:
        """Add a LoRA in stock format: a directory with one, and what else diffusers' pipelines of a UNet take;
        ValueError for options with a transformer."""
        if self.unet is not None:
            super().load_lora_weights(source, adapter_name, **options)
            return
        if options:
            names = ", ".join(options)
            raise ValueError(f"load_lora_weights takes no {names} with a transformer: give a directory alone")
        load_lora(self.denoiser, Path(source), adapter_name or DEFAULT_LORA)

    def set_precision(self, precision: Precision) -> None:
        """Hold the denoiser's weights in `precision` from now on; latents and all other parts stay as they are."""
        if (dtype := choose_autocast_dtype(self.device, precision)) is not None:
            # ModelMixin.to warns at every cast, even where no module must stay
            torch.nn.Module.to(self.denoiser, dtype)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the directory that `from_pretrained` reads; safetensors only, and their checksums."""
        directory = Path(save_directory)
        layers = tuple(self.config["style_layers"] or ())
        detach_adapters(
            self.denoiser, directory, AdapterConfig(source=self.config["image_source"], style_layers=layers)
        )
        super().save_pretrained(str(directory), safe_serialization=True, **kwargs)
        attach_adapters(self.denoiser, directory)
        write_checksums(directory)

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, trust_remote_code: bool = False, **kwargs: Any
    ) -> CanvasPipeline:
        """Load the pipeline in a directory that `save_pretrained` wrote.

        Args:
            trust_remote_code: Whether Python code that a public segmenter brought with it may run.

        Raises:
            ValueError: The directory holds none, one whose weights are not those that were saved, or one that brings
                code, which is not trusted.
        """
        check_saved_pipeline(Path(directory), trust_remote_code=trust_remote_code)
        half = cls.load_config(str(directory)).get("bf16")
        if half and not {"dtype", "torch_dtype"} & kwargs.keys():  # diffusers takes one of the two names
            kwargs["dtype"] = dict.fromkeys(half, torch.bfloat16) | {"default": torch.float32}
        pipeline: CanvasPipeline = super().from_pretrained(str(directory), use_safetensors=True, **kwargs)
        attach_adapters(pipeline.denoiser, Path(directory))
        return pipeline

    @classmethod
    def load_config(cls, *arguments: Any, **options: Any) -> Any:
        """Load the config of a saved pipeline, its parts' modules by their names of today."""
        loaded = super().load_config(*arguments, **options)
        rename_moved_modules(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    def check_prompts(self, prompt: str | None, negative_prompt: str | None = None) -> None:
        """Raise ValueError if a text tower would cut the end of one off, or if the safety model refuses `prompt`."""
        for name, text in (("prompt", prompt), ("negative prompt", negative_prompt)):
            if text is not None:
                check_overflow(name, get_overflow(self.towers, text))
        if prompt is not None:
            self.safety.check_prompt(prompt)
            for read in {tower.clean_text(prompt) for tower in self.towers}:
                if read != " ".join(prompt.split()).lower():  # "&#98;omb" is a bomb to the towers alone
                    self.safety.check_prompt(read)
