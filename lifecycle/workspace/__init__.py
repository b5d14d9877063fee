"""Where a stage writes until its outputs are whole, and digests of content."""
