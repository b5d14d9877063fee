"""Training samples of the denoiser: encoded once, read at random."""
