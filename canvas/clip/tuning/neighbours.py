"""The graph of pins and boards, and random walks on it.

A walk goes from a pin to a board that it is on, and from there to another pin of that board (Pixie, Eksombatchai et al.
2018). Where it ends is a neighbour: somebody found that the two belong together.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from canvas.pins import tables

Edge = tuple[str, str]
"""Pin id and board."""


def read_boards(pins: Path, pin_ids: Container[str]) -> list[Edge]:
    """Read the board of each pin that has one."""
    boards = tables.read_column(pins, "board", pin_ids)
    return [(pin_id, board) for pin_id, board in boards.items() if board]


class PinBoardGraph:
    """Which of `pin_ids` are on which boards; a pin's row is its place among them.

    Args:
        pin_ids: Pins of the graph.
        edges: Pin and board, in any order and as often as they like; of other pins they are left out.
        max_pins: Boards with more pins are left out, as are those with one.
    """

    def __init__(self, pin_ids: Sequence[str], edges: Iterable[Edge], max_pins: int) -> None:
        row_of = {pin_id: row for row, pin_id in enumerate(pin_ids)}
        members: dict[str, set[int]] = {}
        for pin_id, board in edges:
            if pin_id in row_of:
                members.setdefault(board, set()).add(row_of[pin_id])
        boards = [sorted(rows) for _, rows in sorted(members.items()) if 1 < len(rows) <= max_pins]
        pins = np.array([row for rows in boards for row in rows], np.int64)
        ends = np.cumsum([0, *(len(rows) for rows in boards)])
        on = csr_matrix((np.ones(len(pins), np.int32), pins, ends), shape=(len(boards), len(pin_ids)))
        self.pins_of_board = on
        self.boards_of_pin = on.T.tocsr()
        self.boards_of_pin.sort_indices()

    @property
    def boards(self) -> int:
        """Number of boards that are walked on."""
        return int(self.pins_of_board.shape[0])

    @property
    def connected_pins(self) -> int:
        """Number of pins that have a neighbour."""
        return int((np.diff(self.boards_of_pin.indptr) > 0).sum())

    def walk(self, row: int, hops: int, rng: np.random.Generator) -> int:
        """Return the row at which a walk of 1 to `hops` boards from `row` ends: itself, if it is on no board."""
        for _ in range(int(rng.integers(1, hops + 1))):
            boards = _list_neighbours(self.boards_of_pin, row)
            if not len(boards):
                return row
            pins = _list_neighbours(self.pins_of_board, boards[int(rng.integers(len(boards)))])
            place = int(rng.integers(len(pins) - 1))
            row = int(pins[place + (place >= np.searchsorted(pins, row))])  # any but itself
        return row

    def find_shared_boards(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each of `rows` is on a board with each of `others`, [len(rows), len(others)]."""
        shared = self.boards_of_pin[rows] @ self.boards_of_pin[others].T
        return np.asarray(shared.toarray() > 0)


def _list_neighbours(matrix: csr_matrix, row: int) -> NDArray[np.int32]:
    columns: NDArray[np.int32] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return columns
