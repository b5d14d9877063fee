"""The unified visual embedding (UVE), and embeddings of whole tables."""
