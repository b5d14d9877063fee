"""Every artifact of the lifecycle, once: its place, and in the docstring what it holds.

Tables are directories of Parquet parts; their column types stand in `canvas.pins.tables`. Stages add
*sidecar* tables keyed by `pin_id` and never copy pixels.
"""

from __future__ import annotations

from lifecycle.declare.stage import Artifact, Dataset, Metrics, Model, Picture, Plot, Report, Site

# Data


class RawData(Dataset):
    """What the catalogue's owner delivers: for the demo, unmodified package files; pinned by data.dvc."""

    path = "data"
    pinned = True


class Pins(Dataset):
    """One row a pin: encoded image, size, text, board, product, engagement, split (tables.PINS)."""

    path = "artifacts/pins"


class Truth(Dataset):
    """What the showroom knows of each pin it rendered: scene, camera, true alpha, planted defect
    (tables.TRUTH). Empty for a real catalogue. Only for scoring and tests."""

    path = "artifacts/truth"


class Quarantine(Dataset):
    """Rows of the source that could not become pins, each with its reason (tables.QUARANTINE)."""

    path = "artifacts/quarantine"


class IngestMetrics(Metrics):
    """Counts of pins by kind, split and quarantine reason."""

    path = "reports/ingest.json"


class IngestSheet(Picture):
    """A contact sheet of pins of every kind."""

    path = "reports/ingest.png"


class ValidationMetrics(Metrics):
    """Expectations met and failed, by table and severity."""

    path = "reports/validation.json"


class ValidationReport(Report):
    """What was expected of each table and what was found, with links to the Data Docs."""

    path = "reports/validation.html"


class DataDocs(Site):
    """Great Expectations' own site of the last validation (index.html inside)."""

    path = "reports/data_docs"


class TablesMetrics(Metrics):
    """Expectations met and failed of the sidecar tables."""

    path = "reports/validation_tables.json"


class TablesReport(Report):
    """What was expected of each sidecar table and what was found."""

    path = "reports/validation_tables.html"


class TablesDocs(Site):
    """Great Expectations' own site of the sidecars' last validation (index.html inside)."""

    path = "reports/data_docs_tables"


class Kept(Dataset):
    """One row a pin: kept or not, the first reason against it, every score (tables.KEPT)."""

    path = "artifacts/kept"


class FilterMetrics(Metrics):
    """Rows and drops by filter, precision and recall for each planted defect, pins per second."""

    path = "reports/filter.json"


class FilterReport(Report):
    """Funnel, scores against planted defects, one contact sheet a reason."""

    path = "reports/filter.html"


class FilterFunnel(Plot):
    """Pins left after each filter."""

    path = "reports/filter_funnel.csv"
    x = "pins"
    y = "filter"
    template = "bar_horizontal_sorted"


class DriftMetrics(Metrics):
    """Drift verdict and distance of each column and image statistic."""

    path = "reports/drift.json"


class DriftReport(Report):
    """Evidently's report of reference against current pins."""

    path = "reports/drift.html"


# Masks and captions


class Segmenter(Model):
    """Salient-product segmenter: image -> foreground probability."""

    path = "models/segmenter"
    registered = "canvas-segmenter"


class SegmenterMetrics(Metrics):
    """Held-out IoU and boundary F-score with intervals."""

    path = "reports/segmenter.json"


class SegmenterLosses(Plot):
    """Training loss by step."""

    path = "reports/segmenter_loss.csv"
    x = "step"
    y = "loss"


class Masks(Dataset):
    """One row a kept pin: hard mask, soft alpha, confidence, box, rejection reason (tables.MASKS)."""

    path = "artifacts/masks"


class MaskMetrics(Metrics):
    """Masks made and rejected by reason; IoU and boundary F-score against truth where it is known."""

    path = "reports/mask.json"


class MaskSheet(Picture):
    """Pins with their masks drawn in, best and worst."""

    path = "reports/mask.png"


class Captioner(Model):
    """Image-to-text model: pin -> "{product}, {background}"."""

    path = "models/captioner"
    registered = "canvas-captioner"


class CaptionerMetrics(Metrics):
    """Held-out caption scores: scene right, category right, with intervals."""

    path = "reports/captioner.json"


class CaptionerLosses(Plot):
    """Training loss by step."""

    path = "reports/captioner_loss.csv"
    x = "step"
    y = "loss"


class Captions(Dataset):
    """Several rows a kept pin: caption and its source, title, description, alt or generated (tables.CAPTIONS)."""

    path = "artifacts/captions"


class CaptionMetrics(Metrics):
    """Captions by source, tokens a caption; scene and category accuracy against truth where it is known."""

    path = "reports/caption.json"


class CaptionSheet(Picture):
    """Pins with their generated captions."""

    path = "reports/caption.png"


# The generator's encoders, and what they make of the pins


class Clip(Model):
    """The two text-image encoders of open_clip: directories first/ and second/."""

    path = "models/clip"
    registered = "canvas-clip"


class ClipMetrics(Metrics):
    """Retrieval recall on held-out pins of both encoders."""

    path = "reports/clip.json"


class ClipLosses(Plot):
    """Training losses by step."""

    path = "reports/clip_loss.csv"
    x = "step"
    y = "loss"


class SceneJudges(Model):
    """The two judges of scenes that score every picture; no part of the generator, so never registered."""

    path = "models/judges"


class JudgesMetrics(Metrics):
    """How many scenes the judges know, and how often they are right on real held-out pins."""

    path = "reports/judges.json"


class Vae(Model):
    """The autoencoder in diffusers' format, statistics of its latents in its config."""

    path = "models/vae"
    registered = "canvas-vae"


class VaeMetrics(Metrics):
    """PSNR, SSIM, perceptual distance and scene accuracy of held-out reconstructions."""

    path = "reports/vae.json"


class VaeLosses(Plot):
    """Training loss by step."""

    path = "reports/vae_loss.csv"
    x = "step"
    y = "loss"


class VaeSheet(Picture):
    """Held-out pictures over their reconstructions."""

    path = "reports/vae.png"


class Shards(Dataset):
    """Training samples of the denoiser, one a kept pin (canvas.shards.files): latents, text states, masks."""

    path = "artifacts/shards"


class EncodeMetrics(Metrics):
    """Pins by split and bucket, bytes a pin, images per second."""

    path = "reports/encode.json"


class Decoder(Model):
    """The conditional decoder in diffusers' format."""

    path = "models/decoder"
    registered = "canvas-decoder"


class DecoderMetrics(Metrics):
    """Exactness on the product's core, seams, PSNR, against pasting on the plain decoder's output."""

    path = "reports/decoder.json"


class DecoderLosses(Plot):
    """Training loss by step."""

    path = "reports/decoder_loss.csv"
    x = "step"
    y = "loss"


class DecoderSheet(Picture):
    """Held-out products: pasted on the plain decoder's output, and decoded with them."""

    path = "reports/decoder.png"


# Embeddings of pictures, and the styles mined from them


class Uve(Model):
    """Unified visual embedding: picture -> unit vector that knows scene, product, category and board
    (canvas.uve.model)."""

    path = "models/uve"
    registered = "canvas-uve"


class UveMetrics(Metrics):
    """Recall at 1 and 10 of each task on held-out products and views: float, binary code, and CLIP's image tower."""

    path = "reports/uve.json"


class UveLosses(Plot):
    """Training loss by step."""

    path = "reports/uve_loss.csv"
    x = "step"
    y = "loss"


class UveSheet(Picture):
    """Held-out pins, each with its nearest held-out neighbours."""

    path = "reports/uve.png"


class Embeddings(Dataset):
    """One row a kept pin: UVE as floats and as binary code, CLIP's second image tower (tables.EMBEDDINGS)."""

    path = "artifacts/embeddings"


class EmbedMetrics(Metrics):
    """Pins, widths, bytes a pin, pins per second."""

    path = "reports/embed.json"


class Styles(Dataset):
    """One row a style: clusters of the embedding space and boards, dropped ones with their reason (tables.STYLES)."""

    path = "artifacts/styles"


class StyleMetrics(Metrics):
    """The criterion by number of clusters; purity and coherence of those kept, drops by reason, strong boards."""

    path = "reports/styles.json"


class StyleGallery(Report):
    """Representative pictures of every cluster and strong board, with name, purity and coherence; what was dropped."""

    path = "reports/styles.html"


# The generator's denoiser, from text-to-image to engaged backdrops


class BaseModel(Model):
    """Text-to-image denoiser in diffusers' format: unet/ and scheduler/."""

    path = "models/base"
    registered = "canvas-base"


class BaseMetrics(Metrics):
    """Held-out loss by average of the weights, images per second, parameters, pins."""

    path = "reports/base.json"


class BaseLosses(Plot):
    """Training loss by step."""

    path = "reports/base_loss.csv"
    x = "step"
    y = "loss"


class BaseSheet(Picture):
    """Held-out pins over samples of their captions."""

    path = "reports/base.png"


class InpaintModel(Model):
    """The denoiser with the inputs of inpainting, in diffusers' format: unet/ and scheduler/."""

    path = "models/inpaint"
    registered = "canvas-inpaint"


class InpaintMetrics(Metrics):
    """Held-out loss by average of the weights, images per second, parameters, pins."""

    path = "reports/inpaint.json"


class InpaintLosses(Plot):
    """Training loss by step."""

    path = "reports/inpaint_loss.csv"
    x = "step"
    y = "loss"


class InpaintSheet(Picture):
    """Held-out pins, what is known of them, and samples."""

    path = "reports/inpaint.png"


class BackdropLora(Model):
    """LoRA on every layer of the inpainting denoiser, trained on product masks; diffusers' format."""

    path = "models/backdrop_lora"
    registered = "canvas-backdrop-lora"


class BackdropLoraMetrics(Metrics):
    """Held-out loss by average of the weights, images per second, parameters, pins."""

    path = "reports/backdrop_lora.json"


class BackdropLoraLosses(Plot):
    """Training loss by step."""

    path = "reports/backdrop_lora_loss.csv"
    x = "step"
    y = "loss"


class BackdropLoraSheet(Picture):
    """Held-out product pins, what is known of them, and samples."""

    path = "reports/backdrop_lora.png"


class EngagedLora(Model):
    """LoRA on top of the backdrop LoRA, trained on promoted pins with high engagement; diffusers' format."""

    path = "models/engaged_lora"
    registered = "canvas-engaged-lora"


class EngagedLoraMetrics(Metrics):
    """The selection and its engagement against all promoted pins'; held-out loss, images per second, parameters."""

    path = "reports/engaged_lora.json"


class EngagedLoraLosses(Plot):
    """Training loss by step."""

    path = "reports/engaged_lora_loss.csv"
    x = "step"
    y = "loss"


class EngagedLoraSheet(Picture):
    """Held-out engaged pins, what is known of them, and samples."""

    path = "reports/engaged_lora.png"


class IpAdapter(Model):
    """Image prompts of the denoiser: ip_adapter.safetensors, which stock diffusers loads, config.json, and lora/ if a
    LoRA was trained with it (canvas.denoiser.image_prompt)."""

    path = "models/ip_adapter"
    registered = "canvas-ip-adapter"


class IpAdapterMetrics(Metrics):
    """Held-out loss by average of the weights and with another pin's picture, images per second, parameters, pins."""

    path = "reports/ip_adapter.json"


class IpAdapterLosses(Plot):
    """Training loss by step."""

    path = "reports/ip_adapter_loss.csv"
    x = "step"
    y = "loss"


class IpAdapterSheet(Picture):
    """Held-out product pins, what is known of them, and samples after caption and picture."""

    path = "reports/ip_adapter.png"


class CanvasModel(Model):
    """The whole generator as one diffusers pipeline (canvas.inference.pipeline), whose config names what it was made
    from by digest; in reward/ the reward model that chooses among what it paints."""

    path = "models/canvas"
    registered = "canvas-background"


class BackdropMetrics(Metrics):
    """Backgrounds of held-out products: scene accuracy, growth and erosion of the product, KID by stage, seams."""

    path = "reports/backdrop.json"


class BackdropGrid(Picture):
    """Held-out products by prompts, the original beside them."""

    path = "reports/backdrop.png"


class StylePromptMetrics(Metrics):
    """How far pictures of a style are followed, by strength, with a prompt and without: scene, style and text
    agreement, the product's core, leakage of the style picture's product and what would be found of it, diversity; what
    a style changes beside a prompt; scenes followed by the split of the style picture."""

    path = "reports/style_prompts.json"


class StylePromptCurve(Plot):
    """Agreement with style and text, scenes that follow, leakage and diversity, by strength."""

    path = "reports/style_prompts.csv"
    x = "strength"
    y = ("scene_follows", "style_agreement", "leakage", "diversity", "prompt_scene", "text_agreement")


class StylePromptGrid(Picture):
    """Held-out products by style: a row a style, its picture first."""

    path = "reports/style_prompts.png"


# Judgement


class Champion(Dataset):
    """What is known of the registry's champion (champion.json: version, digests, params), its evaluation/ and
    training_statistics/; {"version": null} when there is none. `python -m lifecycle champion pull` writes it; pinned by
    champion.dvc."""

    path = "champion"
    pinned = True


class Ratings(Dataset):
    """People's judgments (tables.JUDGMENTS); empty until somebody has rated. `python -m lifecycle ratings pull`
    writes it; pinned by ratings.dvc."""

    path = "ratings"
    pinned = True


class Preferences(Dataset):
    """What people said, with the pictures that they saw: what the reward model may learn from (tables.PREFERENCES);
    empty at first. Apart from the ratings, for a reward model that has learnt makes another composite, which nobody has
    rated: `python -m lifecycle ratings learn` writes it when somebody decides so; pinned by preferences.dvc."""

    path = "preferences"
    pinned = True


class RewardModel(Model):
    """What judges pictures of products: defects, fidelity, aesthetics, overall; calibrated (canvas.reward.model)."""

    path = "models/reward"
    registered = "canvas-reward"


class SyntheticJudgments(Dataset):
    """What controlled corruptions say of pictures (tables.JUDGMENTS, source "synthetic"): what the reward model learnt
    from and was scored on. No gate counts them."""

    path = "artifacts/judgments_synthetic"


class RewardMetrics(Metrics):
    """Accuracy by question on held-out products, on known and on unseen kinds of corruption; calibration errors."""

    path = "reports/reward.json"


class RewardLosses(Plot):
    """Training loss by step."""

    path = "reports/reward_loss.csv"
    x = "step"
    y = "loss"


class RewardSheet(Picture):
    """Held-out pins under every corruption, with what the reward model says of each."""

    path = "reports/reward.png"


class Candidates(Dataset):
    """Pictures of held-out products by the challenger and the champion, and known-bad ones (tables.CANDIDATES)."""

    path = "artifacts/candidates"


class RatingPacket(Dataset):
    """What raters are shown: packet.json (name, questions with their answers' values, items) and items/*.png. It says
    nothing of who painted what."""

    path = "artifacts/packet"


class RatingKey(Dataset):
    """What must not reach the rating server: key.json says of every item of the packet which candidates it shows and
    what an attention check should get; and the rules by which raters count."""

    path = "artifacts/packet_key"


class CandidateMetrics(Metrics):
    """Candidates by model, items of the rating packet by kind, seconds."""

    path = "reports/candidates.json"


class CandidateSheet(Picture):
    """A few items: the product, what challenger and champion made of it, the known-bad pictures."""

    path = "reports/candidates.png"


class Evaluation(Dataset):
    """One row a candidate: its picture and every score of it (tables.EVALUATION)."""

    path = "artifacts/evaluation"


class TrainingStatistics(Dataset):
    """One row a picture that the models were trained on: the filter's measures of it (tables.TRAINING_STATISTICS).
    Kept with a champion, so that what later models paint is compared with what it learnt from."""

    path = "artifacts/training_statistics"


class EvaluationMetrics(Metrics):
    """By model: every measure's mean with its interval, distances to real pictures, diversity; the challenger's by
    slice; drift of what it paints; how good the judges are; seconds."""

    path = "reports/evaluation.json"


class EvaluationReport(Report):
    """Challenger, champion and pasted products by every measure, what moved in which slice, the worst pictures."""

    path = "reports/evaluation.html"


class PaintedDriftReport(Report):
    """Evidently's report of painted pictures against the champion's training data."""

    path = "reports/drift_painted.html"


# Gates, registry


class Verdict(Artifact):
    """What the gates say of the challenger, in words: a JSON object of outcome, reasons, challenger, champion
    (lifecycle.declare.stage.Decision)."""

    path = "artifacts/verdict.json"


class GateMetrics(Metrics):
    """The verdict as numbers: passed, failed, pending (0 or 1), reasons. Once people have rated, raters: how often the
    reward model agrees with them and they with each other (evaluation.ratings.reward_agreement)."""

    path = "reports/gate.json"


class Review(Report):
    """The page on which a lead decides: verdict, side by side, measures, people, what changed, lineage."""

    path = "reports/review.html"


class Registered(Artifact):
    """The versions in the registry: a JSON object of registered model -> name, version, digest."""

    path = "artifacts/registered.json"


class Promoted(Artifact):
    """What became of the candidate: a JSON object of outcome and reasons, with people's ratings counted, and the move
    (kind, before, after, who, when, why), null if the champion stayed."""

    path = "artifacts/promoted.json"


# The report of it all


class Index(Report):
    """The page that a person opens after a run: every stage's figures and pictures."""

    path = "reports/index.html"
