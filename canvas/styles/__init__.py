"""Styles mined from embeddings: clusters and boards."""
