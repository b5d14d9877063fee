"""Judges of scenes, and the image features that they use."""
