"""Checks of tables: expectations, drift, what the filters dropped."""
