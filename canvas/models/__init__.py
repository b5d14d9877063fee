"""Networks of the generator: denoiser, autoencoder, conditional decoder, text towers, adapters."""
