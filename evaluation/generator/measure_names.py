"""The measures of a candidate: what the table of an evaluation says of each picture, and which way is better.

Apart from what measures them, so that a gate does not depend on the code of models.
"""

from __future__ import annotations

from canvas.pins.tables import CANDIDATES, EVALUATION

MEASURES = tuple(name for name in EVALUATION.names if name not in (*CANDIDATES.names, "mask_size"))

LOWER_IS_BETTER = frozenset({"core_max_abs_diff", "extension", "erosion", "seam_ratio"})
"""Of MEASURES."""
