"""Registered models, promotion, pinned inputs."""
