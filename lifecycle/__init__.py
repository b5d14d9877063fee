"""The managed lifecycle: stages, their parameters, their runs and what they leave behind."""
