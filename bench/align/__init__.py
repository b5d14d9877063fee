"""Alignments with rewards, against each other and against none."""
