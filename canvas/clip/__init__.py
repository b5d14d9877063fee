"""The two text-image encoders (open_clip) that condition the denoiser."""
