"""Measures of one model each: masks, captions, reconstructions, retrieval."""
