"""Product and prompt in, pictures out, the product's pixels unchanged."""
