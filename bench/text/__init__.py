"""Text encoders frozen, tuned, and tuned with neighbours: what they know, and what denoisers make of them."""
