"""Which pins of a catalogue training never sees: whole products, or whole boards or sellers with all their products.

Hashes decide, so that every delivery of a list parts alike. Only where they leave one side empty, as in a short list,
does the product nearest to the limit change sides: a later, longer delivery may move it back.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from canvas.pins import tables
from canvas.pins.fallbacks import Notes

HeldOutUnit = Literal["product", "board", "seller"]


def assign_split(product_id: str | None, pin_id: str, held_out: float) -> str:
    """Assign the split by hash of the product, or of the pin if it has none: alike for every delivery of the list."""
    return _name_split(product_id, hash_to_share(product_id or pin_id) < held_out)


def hash_to_share(name: str) -> float:
    """Return a number of 0..1 that depends on the name alone, spread evenly over names."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


class SplitAssigner:
    """Assigns a split to every pin of a list, one after the other; at the end `settle` moves those that only the whole
    list can tell.

    By board or seller, a product is held out with each board or seller that has a photograph of it, so that training
    sees neither. What has no board or seller is parted by product. About 150 bytes a product are remembered then.
    """

    def __init__(self, held_out: float, by: HeldOutUnit) -> None:
        self._held_out, self._by = held_out, by
        self._groups: set[str] = set()  # boards or sellers
        self._lowest: dict[str, float] = {}  # product, or pin without one -> lowest hash of its boards or sellers

    def assign(self, product_id: str | None, pin_id: str, row: Mapping[str, Any]) -> str:
        """Return the split of a pin by its product, and remember the board or seller that `row` has."""
        if self._by != "product":
            group, unit = (row.get(self._by) or "").strip(), product_id or pin_id
            self._groups.update({group} - {""})
            self._lowest[unit] = min(self._lowest.get(unit, 1.0), hash_to_share(group or unit))
        return assign_split(product_id, pin_id, self._held_out)

    def settle(self, pins: Path, notes: Notes) -> None:
        """Write the splits of the table `pins` anew where boards or sellers part it, or one side has no product.

        Where all products are on one side, that nearest to the limit changes sides, with those of its board or seller;
        where there is one, it trains. Both are noted. What has no product counts only where nothing has one.
        """
        if not self._held_out:
            return
        table = tables.read(pins, ["pin_id", "product_id", "split"])
        rows, what = table.filter(pc.is_valid(table["product_id"])), "product"
        if not rows.num_rows:
            rows, what = table, "pin"
        if self._by == "product" and len(rows["split"].unique()) == 2:
            return
        shares = self._choose_shares(rows[f"{what}_id"].unique().to_pylist(), notes)
        moved: dict[str, float] = {}
        low, high = min(shares.values()), max(shares.values())
        if low == high:
            moved = dict.fromkeys(shares, 1.0)
            notes.add(f"all pins show one {what}, so none is held out")
        elif low >= self._held_out or high < self._held_out:
            nearest, side, share = (high, "every", 1.0) if high < self._held_out else (low, "no", 0.0)
            moved = {unit: share for unit, value in {**self._lowest, **shares}.items() if value == nearest}
            notes.add(f"by its hash {side} {what} of {len(shares)} is held out, so the nearest to it changed sides")
        _rewrite_splits(pins, self._lowest | moved, self._held_out)

    def _choose_shares(self, units: list[str], notes: Notes) -> dict[str, float]:
        """Return unit -> its hash: the lowest of its boards or sellers where these part the units, else its own."""
        if self._by != "product":
            shares = {unit: self._lowest[unit] for unit in units}
            if self._groups and len(set(shares.values())) > 1:
                return shares
            self._lowest.clear()
            notes.add(f"there are {len(self._groups)} {self._by}s, which part nothing, so products were held out alone")
        return {unit: hash_to_share(unit) for unit in units}


def _rewrite_splits(pins: Path, share_of: Mapping[str, float], held_out: float) -> None:
    """Replace the table by one whose pins are held out where `share_of` their product, else its hash, is below."""
    settled, place = pins.with_name(f"{pins.name}.settled"), tables.PINS.get_field_index("split")
    with tables.Writer(settled, tables.PINS) as writer:
        for batch in tables.read_batches(pins):
            table = pa.Table.from_batches([batch])
            splits = []
            for product, pin in zip(table["product_id"].to_pylist(), table["pin_id"].to_pylist(), strict=True):
                unit = product or pin
                share = share_of[unit] if unit in share_of else hash_to_share(unit)
                splits.append(_name_split(product, share < held_out))
            writer.add(table.set_column(place, "split", pa.array(splits, pa.string())))
    shutil.rmtree(pins)
    settled.rename(pins)


def _name_split(product_id: str | None, is_held_out: bool) -> str:
    if not is_held_out:
        return "train"
    return "unseen_product" if product_id else "unseen_view"
