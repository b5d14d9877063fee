"""Product and prompt in, images out, the product's pixels unchanged."""
