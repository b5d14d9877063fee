"""A diffusion transformer, of the class of Flux, as a family of denoisers."""
