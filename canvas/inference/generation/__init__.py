"""One request to the pipeline: its settings, its scene as the model reads it, its candidates."""
