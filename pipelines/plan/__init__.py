"""What a run needs before it is started, with the arithmetic: `python -m pipelines.plan`."""
