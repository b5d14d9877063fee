"""One training loop for every model: objective + parameters + data in, nothing model-specific."""
