"""The toy's library: what its stages import."""
