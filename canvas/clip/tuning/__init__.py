"""Text towers tuned on the catalogue, and the mix of their layers that the denoiser reads."""
