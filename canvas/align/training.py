"""An alignment from its params: policy, rollouts, rewards, objective and guard, and the run that joins them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin

from canvas.align.guard import SHEET_PROMPTS, GoldJudge, Guard, HeldOutSampler, draw_images
from canvas.align.objectives import AlignmentObjective, build_policy_objective
from canvas.align.policy import Policy
from canvas.align.prompts import PromptSource
from canvas.align.rewards import RewardSet, load_rewards
from canvas.align.rollouts import LatentReward, RolloutBatches, RolloutSampler
from canvas.align.spec import EVIDENCE_FILE, AlignParams, Generator
from canvas.align.transitions import TransitionBuilder
from canvas.decoder.training import read_conditioned_pins
from canvas.denoiser.batch import MaskKind, build_batches
from canvas.denoiser.family import Denoiser
from canvas.denoiser.loading import get_family, load_denoiser
from canvas.denoiser.lora import add_lora, fold_lora_weights, load_lora, merge_lora, save_lora
from canvas.denoiser.objective import DenoisingObjective
from canvas.denoiser.process import build_process
from canvas.denoiser.schedulers import build_scheduler, load_scheduler
from canvas.denoiser.spec import DiffusionSpec, RecommendedSampling, SamplingSpec
from canvas.denoiser.training import TrainingLog
from canvas.device import default_device
from canvas.pins import tables
from canvas.pins.captions import read_captions
from canvas.pins.fallbacks import Notes, choose_sources, choose_splits
from canvas.shards.rows import ShardRow, ShardRows, has_product, is_any_row, spread_evenly
from canvas.train.loop import TrainResult, fit
from canvas.train.spec import Training, TrainSpec
from canvas.vae.model import LatentScale, get_latent_scale, load_vae


@dataclass(frozen=True, slots=True)
class AlignmentData:
    """What an alignment reads: real pins of the train split, prompts to roll out, and held-out prompts to judge by."""

    shards: ShardRows
    masks: MaskKind
    pretraining_rows: list[ShardRow]
    train: PromptSource
    checked: list[ShardRow]  # held out
    final: list[ShardRow]  # likewise, others where there are enough
    held_out: PromptSource


def read_alignment_data(
    params: AlignParams,
    folders: Mapping[str, Path],
    sources: Sequence[str],
    scale: LatentScale,
    notes: Notes,
) -> AlignmentData:
    """Read the rows of an alignment and, for the backdrop generator, the products in them.

    Args:
        params: Which generator, and how many pins.
        folders: Of shards, pins, masks and captions.
        sources: Of captions, in the order in which the shards have them.
        scale: Of the shards' latents.
        notes: What was done otherwise than params say.

    Raises:
        ValueError: No pin of the train split can be rolled out.
    """
    rows, keeps_products = ShardRows(folders["shards"]), params.generator == "backdrop"
    selects = has_product if keeps_products else is_any_row
    mask_kind: MaskKind = "product" if keeps_products else "none"
    selected = [row for row in rows.index if selects(row)]
    first_views = [row for row in selected if row.view == 0]
    ids = {row.pin_id for row in first_views}
    captions_of = read_captions(folders["captions"], ids, choose_sources(folders["captions"], ids, sources, notes))
    first_views = [row for row in first_views if row.pin_id in captions_of]
    rolled = spread_evenly([row for row in first_views if row.split == "train"], params.pins)
    if not rolled:
        raise ValueError("no pin of the train split has a caption and a mask: there is nothing to roll out")
    splits = choose_splits((row.split for row in first_views), tables.HELD_OUT_SPLITS, notes)
    judged = [row for row in first_views if row.split in splits]
    final = spread_evenly(judged, params.guard.final_prompts)
    in_final = set(final)
    others = [row for row in judged if row not in in_final]
    if len(others) < params.guard.prompts:
        notes.add("too few held-out prompts: checks and the verdict share some, at other seeds")
        others = judged
    checked = spread_evenly(others, params.guard.prompts)

    identities = tables.RowsById(folders["pins"]).read({row.pin_id for row in judged}, ("pin_id", "product_id"))
    product_of = {row["pin_id"]: row["product_id"] for row in identities if row["product_id"] is not None}

    def build_source(chosen: Sequence[ShardRow]) -> PromptSource:
        products = read_conditioned_pins(rows, chosen, folders["pins"], folders["masks"]) if keeps_products else []
        texts = {row.pin_id: captions_of[row.pin_id][0] for row in chosen}
        by_row = {pin.row.row: pin for pin in products}
        return PromptSource(rows, scale, list(chosen), texts, mask_kind, by_row, product_of)

    return AlignmentData(
        shards=rows,
        masks=mask_kind,
        pretraining_rows=[row for row in selected if row.split == "train"],
        train=build_source(rolled),
        checked=checked,
        final=final,
        held_out=build_source(sorted({*checked, *final}, key=lambda row: row.row)),
    )


def save_alignment(policy: Policy, generator: Generator, run: AlignmentRun, folder: Path) -> None:
    """Write the policy's LoRA, which generator it is for, and what the judge said of it."""
    save_lora(policy.denoiser, folder)
    numbers = {name: value for name, value in run.figures.items() if isinstance(value, int | float)}
    content = {"generator": generator, "reason": run.reason, "figures": numbers}
    (folder / EVIDENCE_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentRun:
    """What an alignment leaves beside the policy."""

    is_better: bool
    reason: str  # in a sentence
    figures: dict[str, Any]  # the same whenever it is run
    costs: dict[str, float]  # time and memory of this run
    curve: str  # CSV of step, reward and gold
    sheet: bytes  # before and after, as PNG


@dataclass
class Aligner:
    """Align a denoiser with rewards."""

    params: AlignParams
    spec: TrainSpec
    diffusion: DiffusionSpec
    sampling: SamplingSpec  # of judged images
    _: KW_ONLY
    data: AlignmentData
    rewards: RewardSet
    judge: GoldJudge
    scale: LatentScale
    scheduler: SchedulerMixin  # the denoiser's own, by which images are rolled out
    sampler: str | None = None  # of judged images, by name; None: the denoiser's own
    notes: Notes = field(default_factory=Notes)

    @classmethod
    def load(
        cls,
        params: AlignParams,
        training: Training,
        diffusion: DiffusionSpec,
        sampling: RecommendedSampling,
        folders: Mapping[str, Path],
        judge: GoldJudge,
        sources: Sequence[str],
        notes: Notes,
    ) -> Aligner:
        """Load what params need.

        Args:
            folders: Of shards, pins, masks, captions, vae, reward, segmenter and clip; and model, the denoiser's with
                its scheduler.
            sampling: How the generator is used, and so judged.
            sources: Of captions, in the order in which the shards have them.
        """
        assert params.train is not None
        autoencoder = load_vae(folders["vae"]).eval()
        scale = get_latent_scale(autoencoder)
        networks = {name: folders[name] for name in ("reward", "segmenter", "clip")}
        data = read_alignment_data(params, folders, sources, scale, notes)
        return cls(
            params,
            training.resolve(params.train),
            diffusion.resolve_shift(data.shards.cells),
            sampling.build_spec(params.passes),
            data=data,
            rewards=load_rewards(params, autoencoder, **networks, device=default_device()),
            judge=judge,
            scale=scale,
            scheduler=load_scheduler(folders["model"]),
            sampler=sampling.scheduler,
            notes=notes,
        )

    def load_policy(self, model: Path, loras: Sequence[Path]) -> Policy:
        """Load the denoiser that is aligned, with LoRAs of earlier stages in its weights, and a new one."""
        denoiser = load_denoiser(model)
        for folder in loras:
            denoiser = merge_lora(load_lora(denoiser, folder))
        return self.build_policy(denoiser)

    def build_policy(self, denoiser: Denoiser) -> Policy:
        """Give the denoiser the LoRA that is trained; nothing else requires gradients."""
        lora = self.params.lora
        torch.manual_seed(self.spec.seed)
        return Policy(add_lora(denoiser, rank=lora.rank, alpha=lora.alpha))

    def align(self, policy: Policy, work: Path, log: TrainingLog) -> AlignmentRun:
        """Train the policy in place, and leave in it the weights that the judge found best. A killed run goes on from
        `work`."""
        clock, guard = time.perf_counter(), self.build_guard(work / "checks", log)
        result = self.train(policy.to(default_device()), work / "checkpoints", log, self.rewards, guard)
        if not guard.is_exhausted:  # no step follows the last one, before which the guard would be asked
            guard(policy, self.spec.steps)
        guard.load_best(policy)
        verdict, before, after, figures = guard.judge_final(policy, self.data.final)
        checks = guard.checks.values()
        return AlignmentRun(
            is_better=verdict.is_better,
            reason=verdict.reason,
            figures={
                **figures,
                **verdict.figures,
                "better": int(verdict.is_better),
                "best_step": guard.best.step,
                "last_step": max(guard.checks),
                "stopped_early": int(max(guard.checks) < self.spec.steps),
                "alarms": len(guard.alarms),
                "images_sampled": self.count_images(max(guard.checks)),
                "judged_images": len(before.images),
                "trained_parameters": sum(weight.numel() for weight in policy.parameters() if weight.requires_grad),
                **self.notes.to_metrics(),
            },
            costs={
                "images_per_second": result.images_per_second,
                "peak_memory_mb": result.peak_memory_bytes / 1e6,
                "seconds": time.perf_counter() - clock,
            },
            curve="step,reward,gold\n" + "".join(f"{check.step},{check.reward},{check.gold}\n" for check in checks),
            sheet=draw_images([before, after], SHEET_PROMPTS),
        )

    def build_guard(self, folder: Path, log: TrainingLog, rewards: RewardSet | None = None) -> Guard:
        """Build the guard that keeps its checks in `folder`; `rewards` of judged images are by default those that are
        trained on."""
        sampler = HeldOutSampler(
            self.data.held_out,
            self.scheduler if self.sampler is None else build_scheduler(self.sampler, self.scheduler),
            self.scale,
            self.sampling,
            rewards or self.rewards,
            self.params.guard.images,
            self.spec.seed,
        )
        return Guard(
            self.params, sampler, self.judge, self.data.checked, every=self.spec.sample_every, folder=folder, log=log
        )

    def train(
        self,
        policy: Policy,
        checkpoints: Path,
        log: TrainingLog,
        reward: LatentReward,
        stop: Callable[[Policy, int], bool] | None,
    ) -> TrainResult:
        """Train the policy in place on a reward, until `stop`, such as a guard, says so if there is one."""
        params, spec, process = self.params, self.spec, build_process(self.diffusion)
        transitions = None
        if params.ppo is not None:
            transitions = TransitionBuilder(
                process=process,
                scheduler=self.scheduler,
                steps=params.rollouts.steps,
                noise=params.ppo.noise,
                patch=get_family(policy.denoiser).patch,
            )
        batches = RolloutBatches(
            RolloutSampler(policy, self.scheduler, self.scale, params, transitions),
            self.data.train,
            reward,
            build_batches(self.data.shards, self.data.pretraining_rows, self.data.masks, spec.batch_size, spec.seed),
            batch_size=spec.batch_size,
            seed=spec.seed,
            log=log.metrics,
        )
        objective = AlignmentObjective(
            params,
            build_policy_objective(params, process, transitions),
            DenoisingObjective(
                self.diffusion,
                self.scale,
                captions=params.pretraining.captions,
                caption_dropout=params.pretraining.caption_dropout,
                inpaint=self.data.masks != "none",
            ),
        )

        folding = fold_lora_weights(policy.denoiser) if params.lora.folded else nullcontext()
        with folding:
            return fit(policy, objective, batches, spec, checkpoints=checkpoints, log=log.metrics, stop=stop)

    def count_images(self, steps: int) -> int:
        """Return how many images were rolled out in so many steps."""
        rollouts = self.params.rollouts
        return -(-steps // self.params.steps_per_round) * rollouts.groups * rollouts.images
