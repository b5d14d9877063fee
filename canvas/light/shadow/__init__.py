"""The shadow that a product casts on its background: a bounded map, its laws, and the network that predicts it."""
