"""The autoencoder, its objective and the statistics of its latents."""
