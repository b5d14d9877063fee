"""One file a stage: a params dataclass and a thin function that composes the canvas library."""
