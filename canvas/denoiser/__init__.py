"""The denoiser: network, noise process, sampling, objective, adapters."""
