"""The record of a run: a journal on disk, sent to MLflow."""
