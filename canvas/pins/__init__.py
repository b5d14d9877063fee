"""Pins: their tables, images, masks and captions, and what is read from them."""
