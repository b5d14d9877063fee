"""Two small stages that really run."""
