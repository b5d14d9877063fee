"""Measures of canvases: old borders, repetition, products that are missing or too many."""
