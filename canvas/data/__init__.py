"""Pins: their tables, pictures, sources and quality."""
