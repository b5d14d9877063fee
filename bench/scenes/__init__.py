"""Canvases, several products and mode soft on held-out products: `python -m bench.scenes`."""
