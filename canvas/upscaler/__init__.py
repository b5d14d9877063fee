"""Super-resolution of generated backgrounds: the network, its training, and large images by tiles."""
