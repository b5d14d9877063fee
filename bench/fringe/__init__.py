"""What is left of the old background along a product's edge, with and without mending (`python -m bench.fringe`)."""
