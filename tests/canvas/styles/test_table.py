import pyarrow as pa
import pytest

from canvas.pins import tables
from canvas.styles.table import find_style, read_styles


@pytest.fixture
def styles(tmp_path):
    def row(style_id, kind, name, dropped=None):
        known = {"uve": [0.6, 0.8], "clip": [1.0, 0.0], "pins": ["a", "b"], "purity": 0.9, "coherence": 0.5}
        return known | {"style_id": style_id, "kind": kind, "name": name, "chance": None, "dropped": dropped}

    rows = [
        row("cluster-000", "cluster", "forest"),
        row("cluster-001", "cluster", "lobby", "mixed: 0.3 of its captions speak of 'lobby', 0.7 is needed"),
        row("board-0000", "board", "Cosy outfits", "no style of its own"),
        row("board-0001", "board", "Forest style"),
    ]
    tables.write(tmp_path / "styles", [pa.Table.from_pylist(rows, tables.STYLES)], tables.STYLES)
    return read_styles(tmp_path / "styles")


def test_styles_are_found_by_name_or_id_whatever_the_case(styles):
    assert find_style(styles, "cluster", " Forest").style_id == "cluster-000"
    assert find_style(styles, "cluster", "cluster-000").pins == ("a", "b")
    assert find_style(styles, "board", "cosy outfits").dropped  # its pictures are still asked for


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("cluster", "forrest", "no style cluster is called 'forrest': did you mean 'forest'?"),
        ("board", "forest", "no board is called 'forest': did you mean 'Forest style'"),
        ("cluster", "lobby", "style cluster 'lobby' was dropped: mixed: 0.3"),
        ("cluster", "zzz", "no style cluster is called 'zzz': did you mean 'forest'?"),
    ],
)
def test_an_unknown_style_is_refused_with_the_nearest_names(styles, kind, name, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        find_style(styles, kind, name)


def test_nothing_can_be_offered_when_nothing_was_mined(styles):
    with pytest.raises(ValueError, match="no board is called 'x': none was mined"):
        find_style([style for style in styles if style.kind == "cluster"], "board", "x")
