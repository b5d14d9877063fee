"""The segmenter: image in, opacity of the product out."""
