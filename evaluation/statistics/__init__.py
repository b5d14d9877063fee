"""Confidence intervals, significance and calibration."""
