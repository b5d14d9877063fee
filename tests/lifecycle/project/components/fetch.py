from dataclasses import dataclass

from components.artifacts import Numbers, Raw
from lifecycle.declare.stage import Input, Output, stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    times: int


@stage()
def fetch(fetch: Fetch, raw: Input[Raw], numbers: Output[Numbers]) -> None:
    """Multiply the raw numbers."""
    numbers.path.mkdir()
    for line in (raw.path / "numbers.txt").read_text().split():
        (numbers.path / line).write_text(str(int(line) * fetch.times))
