"""Frozen networks that ship in packages, and distances in their features."""
