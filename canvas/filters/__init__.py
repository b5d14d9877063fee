"""Which pins are fit for training, and why the others are not."""
