from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from canvas.clip.tuning.neighbours import PinBoardGraph, read_boards
from canvas.pins import tables

PINS = ["a", "b", "c", "d", "e", "f"]
EDGES = [
    ("a", "Kitchen"),
    ("b", "Kitchen"),
    ("b", "Kitchen"),  # saved twice
    ("b", "Garden"),
    ("c", "Garden"),
    ("d", "Garden"),
    ("e", "Alone"),
    ("z", "Alone"),  # not among the pins
    *((pin, "Everything") for pin in PINS),
]


@pytest.fixture
def graph() -> PinBoardGraph:
    """a and b share a board; b, c and d share another; e and f are on none that counts."""
    return PinBoardGraph(PINS, EDGES, max_pins=4)


def list_ends(graph: PinBoardGraph, pin: str, hops: int, walks: int = 3000) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(PINS[graph.walk(PINS.index(pin), hops, rng)] for _ in range(walks))


def test_boards_of_one_pin_and_of_too_many_are_left_out(graph: PinBoardGraph) -> None:
    assert (graph.boards, graph.connected_pins) == (2, 4)
    everything = PinBoardGraph(PINS, EDGES, max_pins=6)
    assert (everything.boards, everything.connected_pins) == (3, 6)


def test_a_hop_ends_at_another_pin_of_a_board(graph: PinBoardGraph) -> None:
    assert list_ends(graph, "a", 1).keys() == {"b"}
    ends = list_ends(graph, "b", 1)
    assert ends.keys() == {"a", "c", "d"}
    assert ends["a"] / 3000 == pytest.approx(1 / 2, abs=0.05)  # half of the walks take the smaller board
    assert ends["c"] / 3000 == pytest.approx(1 / 4, abs=0.05)


def test_two_hops_reach_what_shares_no_board(graph: PinBoardGraph) -> None:
    ends = list_ends(graph, "a", 2)
    assert ends.keys() == {"a", "b", "c", "d"}
    assert ends["b"] / 3000 == pytest.approx(1 / 2, abs=0.05)  # walks of one hop
    assert ends["a"] / 3000 == pytest.approx(1 / 4, abs=0.05)  # and back


def test_a_pin_on_no_board_is_its_own_neighbour(graph: PinBoardGraph) -> None:
    for pin in ("e", "f"):
        assert list_ends(graph, pin, 3, walks=20).keys() == {pin}


def test_shared_boards_are_those_of_the_table(graph: PinBoardGraph) -> None:
    shared = graph.find_shared_boards(np.array([0, 1, 4]), np.array([0, 1, 2, 4]))
    np.testing.assert_array_equal(shared, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])


def test_nobody_shares_a_board() -> None:
    graph = PinBoardGraph(PINS, [], max_pins=10)
    assert (graph.boards, graph.connected_pins) == (0, 0)
    assert graph.walk(2, 3, np.random.default_rng(0)) == 2
    assert not graph.find_shared_boards(np.array([0]), np.array([0, 1])).any()


def test_boards_are_read_of_the_pins_that_have_one(tmp_path) -> None:
    rows = [
        dict.fromkeys(tables.PINS.names) | {"pin_id": pin, "board": board}
        for pin, board in (("a", "Kitchen"), ("b", None), ("c", ""), ("d", "Garden"))
    ]
    tables.write_rows(tmp_path / "pins", rows, tables.PINS)
    assert read_boards(tmp_path / "pins", {"a", "b", "c"}) == [("a", "Kitchen")]
