"""Intervals, significance, calibration."""
