"""Eight candidates by our pipeline and by diffusers' own, side by side (`python -m bench.generation`)."""
