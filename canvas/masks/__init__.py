"""Masks in training: random ones, simulated errors of a segmenter, compositing. 1 is product and is kept."""
