"""Noise schedules, objectives (pure losses), conditioning and guidance; samplers are diffusers' schedulers."""
