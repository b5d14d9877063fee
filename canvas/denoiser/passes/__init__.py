"""One step of the sampler: the guided network, windows of a long image, layers as one matrix."""
