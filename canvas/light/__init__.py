"""The light of a generated scene on a product: a bounded, smooth gain, its laws, and the certificate that says so."""
