"""Public classifiers that refuse prompts and generated images."""
