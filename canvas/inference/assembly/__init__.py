"""One pipeline from its parts: those that stages wrote, public ones, and those of a saved directory."""
