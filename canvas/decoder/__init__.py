"""The conditional decoder: keeps the product to the pixel."""
