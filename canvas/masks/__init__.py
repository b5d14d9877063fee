"""Masks in training: random holes, a segmenter's errors, compositing. 1 is product and is kept."""
