"""The reward model: judges images of products."""
