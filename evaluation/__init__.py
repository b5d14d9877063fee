"""Measurements in, judgement out: scores, expectations, drift and the pages that show them."""
