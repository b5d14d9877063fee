"""`make gpu`: what a GPU does with this code. Needs torch, transformers and the wheels of `make gpu-wheels` alone."""
