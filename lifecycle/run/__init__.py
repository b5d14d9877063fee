"""Running a stage: the wrapper round every one, and its ranks."""
