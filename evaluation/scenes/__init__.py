"""The assembled generator in its modes, sizes, formats and numbers of products: slices of scores, and sheets."""
