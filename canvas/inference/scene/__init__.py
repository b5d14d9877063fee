"""Several products, or one on a larger canvas, as the pipeline's one product."""
