"""Measurements, not tests: each module prints its figures; `make bench` runs them all."""
