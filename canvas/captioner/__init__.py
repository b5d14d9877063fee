"""The captioner: image in, "{product}, {background}" out."""
