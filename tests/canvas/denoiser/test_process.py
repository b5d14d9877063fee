from __future__ import annotations

import dataclasses

import pytest
import torch

from canvas.denoiser.process import build_process, build_training_scheduler
from canvas.denoiser.schedulers import SCHEDULERS, apply_guidance, build_scheduler, is_flow
from canvas.denoiser.spec import DiffusionSpec
from canvas.train.draws import Draws

FLOW = DiffusionSpec(
    prediction="flow",
    train_timesteps=1000,
    time_mean=0.0,
    time_std=1.0,
    shift=1.0,
    shift_side=None,
    beta_start=None,
    beta_end=None,
    zero_terminal_snr=None,
    min_snr_gamma=None,
)
V = DiffusionSpec(
    prediction="v",
    train_timesteps=1000,
    time_mean=None,
    time_std=None,
    shift=None,
    shift_side=None,
    beta_start=0.00085,
    beta_end=0.012,
    zero_terminal_snr=True,
    min_snr_gamma=5.0,
)
EPS = dataclasses.replace(V, prediction="eps", zero_terminal_snr=False)
ALL = pytest.mark.parametrize("spec", [FLOW, V, EPS], ids=["flow", "v", "eps"])


@ALL
def test_a_perfect_denoiser_samples_the_data(spec: DiffusionSpec):
    """Each sampler that the spec allows walks from noise to the one clean point that exists."""
    clean = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.7
    process = build_process(spec)
    for name in SCHEDULERS["flow" if spec.prediction == "flow" else "diffusion"]:
        scheduler = build_scheduler(name, build_training_scheduler(spec))
        scheduler.set_timesteps(20)
        x = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)
        for time in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
            times = time.expand(2) if spec.prediction == "flow" else time.long().expand(2)
            one, zero = torch.ones_like(seen), torch.zeros_like(seen)
            noise = (seen - process.add_noise(clean, zero, times)) / process.add_noise(zero, one, times)
            x = scheduler.step(process.compute_target(clean, noise, times), time, x).prev_sample
        assert (x - clean).abs().max() < 0.02, name


@ALL
def test_noisy_latents_agree_with_diffusers(spec: DiffusionSpec):
    scheduler = build_training_scheduler(spec)
    clean, noise = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    times = torch.tensor([1, 250, 700, 999])
    times = times.float() if spec.prediction == "flow" else times
    add = scheduler.scale_noise if spec.prediction == "flow" else scheduler.add_noise
    wanted = add(clean, times, noise) if spec.prediction == "flow" else add(clean, noise, times)
    torch.testing.assert_close(build_process(spec).add_noise(clean, noise, times), wanted)


def test_v_target_agrees_with_diffusers():
    clean, noise, times = torch.randn(3, 2, 2, 2), torch.randn(3, 2, 2, 2), torch.tensor([0, 500, 999])
    from diffusers import DDPMScheduler

    stock = DDPMScheduler.from_config(build_training_scheduler(V).config)
    torch.testing.assert_close(
        build_process(V).compute_target(clean, noise, times), stock.get_velocity(clean, noise, times)
    )


def test_terminal_snr_is_zero_only_when_asked():
    last = torch.tensor([999])
    clean, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    assert build_process(V).add_noise(clean, zero, last).abs().max() < 1e-3
    assert build_process(EPS).add_noise(clean, zero, last).abs().max() > 0.05


def test_min_snr_weights():
    """Hang et al. 2023: min(SNR, gamma) / SNR for eps, / (SNR + 1) for v."""
    times = torch.tensor([5, 500, 998])
    for spec, extra in ((EPS, 0), (V, 1)):
        process = build_process(spec)
        signal = build_training_scheduler(spec).alphas_cumprod[times]
        ratio = signal / (1 - signal)
        torch.testing.assert_close(process.compute_weights(times), ratio.clamp(max=5) / (ratio + extra))
        assert (build_process(dataclasses.replace(spec, min_snr_gamma=None)).compute_weights(times) == 1).all()
    assert (build_process(FLOW).compute_weights(times.float()) == 1).all()


def test_flow_times_are_logit_normal_and_shifted():
    draws = Draws(seed=0, step=0, first=0, samples=4000)
    times = build_process(FLOW).sample_timesteps(draws) / 1000
    logits = torch.logit(times.double())
    assert abs(logits.mean()) < 0.06
    assert abs(logits.std() - 1) < 0.05
    shifted = build_process(dataclasses.replace(FLOW, shift=3.0)).sample_timesteps(
        Draws(seed=0, step=0, first=0, samples=4000)
    )
    torch.testing.assert_close(shifted / 1000, 3 * times / (1 + 2 * times))


def test_the_shift_grows_with_the_side_of_the_latents():
    """Esser et al. 2024, eq. 23: times of m cells are those of n cells shifted by the root of m / n."""
    spec = dataclasses.replace(FLOW, shift=1.5, shift_side=16)
    assert spec.resolve_shift(16 * 16).shift == 1.5
    assert spec.resolve_shift(32 * 32).shift == 3.0
    assert spec.resolve_shift(8 * 32).shift == 1.5
    resolved = spec.resolve_shift(64 * 64)
    assert build_training_scheduler(resolved).config.shift == 6.0
    assert resolved.resolve_shift(8 * 8) == resolved  # once
    assert FLOW.resolve_shift(64 * 64) == FLOW
    assert V.resolve_shift(64 * 64) == V

    def median(spec: DiffusionSpec) -> float:
        return float(build_process(spec).sample_timesteps(Draws(0, 0, 0, 4000)).median()) / 1000

    assert median(resolved) == pytest.approx(6 / 7, abs=0.01)  # shift s: the median is s / (1 + s)
    assert median(spec.resolve_shift(16 * 16)) == pytest.approx(0.6, abs=0.02)


def test_diffusion_times_cover_the_schedule():
    times = build_process(V).sample_timesteps(Draws(seed=0, step=0, first=0, samples=4000))
    assert times.dtype == torch.int64
    assert times.min() < 5
    assert times.max() > 994


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (FLOW, {"min_snr_gamma": 5.0}, r"min_snr_gamma is 5\.0, but prediction 'flow' ignores it"),
        (FLOW, {"shift": None}, "shift is null: prediction 'flow' needs it"),
        (V, {"time_mean": 0.0}, "time_mean is 0.0, but prediction 'v' ignores it"),
        (V, {"shift_side": 16}, "shift_side is 16, but prediction 'v' ignores it"),
        (V, {"beta_end": None}, "beta_end is null"),
        (V, {"prediction": "eps"}, "eps cannot learn from pure noise"),
    ],
)
def test_ignored_and_missing_values_are_refused(base, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(base, **change)


def test_unknown_scheduler_offers_the_known():
    with pytest.raises(ValueError, match="unknown scheduler 'ddim': this denoiser samples with euler, heun"):
        build_scheduler("ddim", build_training_scheduler(FLOW))
    assert is_flow(build_scheduler("dpm++", build_training_scheduler(FLOW)))
    assert not is_flow(build_scheduler("dpm++", build_training_scheduler(V)))


def test_guidance():
    unconditional, conditional = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert torch.equal(apply_guidance(unconditional, conditional, 0), unconditional)
    torch.testing.assert_close(apply_guidance(unconditional, conditional, 1), conditional)
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import rescale_noise_cfg

    full = apply_guidance(unconditional, conditional, 5)
    torch.testing.assert_close(
        apply_guidance(unconditional, conditional, 5, 0.7), rescale_noise_cfg(full, conditional, 0.7)
    )
    matched = apply_guidance(unconditional, conditional, 5, 1.0)
    torch.testing.assert_close(matched.std(dim=(1, 2, 3)), conditional.std(dim=(1, 2, 3)))
