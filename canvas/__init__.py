"""Canvas: generate a photorealistic background for a product that stays unchanged to the pixel.

In every mask of this library 1 means product (keep) and 0 means background (generate).
"""
