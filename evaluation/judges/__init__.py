"""Judges of scenes, and the features that they see by."""
