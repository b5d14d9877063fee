"""Measures of generated images, by candidate and by model."""
