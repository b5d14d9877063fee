"""Hidden states of a denoiser that is trained are drawn to features of a frozen network (REPA)."""
