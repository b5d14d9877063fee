"""Where products stand on a canvas: sizes and formats, places, several products, the passes of a long canvas."""
