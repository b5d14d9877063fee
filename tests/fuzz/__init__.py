"""Fuzzers: broken input from fixed seeds, thousands of cases; `make fuzz` runs them all, pytest none of them.

A fuzzer is a module here with a function `try_case(seed) -> str | None`. It builds the case of that seed, hands it to
the code and returns what went wrong, in words, or None where the case was read rightly or refused in one sentence.
What it raises counts as a traceback. `FUZZERS` in `__main__.py` names them.
"""
