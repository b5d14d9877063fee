from __future__ import annotations

import csv
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from canvas.pins import tables
from canvas.pins.fallbacks import Notes
from canvas.pins.images import encode_jpeg, encode_png
from canvas.sources.addresses import format_error, strip_credentials
from canvas.sources.lists import Format
from canvas.sources.manifest import ManifestSpec, ingest_manifest
from lifecycle.declare.params import read_section
from tests.canvas.pins.test_images import png_header

PICTURE = encode_jpeg(Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)))


def spec(path: str = "list.csv", **changes: Any) -> ManifestSpec:
    formats: dict[str, Format] = {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet"}
    format_ = formats[path.split("?")[0].rsplit(".", 1)[1]]
    base = ManifestSpec(
        path=path,
        format=format_,
        name="shop",
        columns={"pin_id": "id", "image": "picture", "title": "name", "product_id": "sku", "saves": "saved"},
        held_out=0.2,
        held_out_by="product",
        max_bytes=100_000,
        max_pixels=1_000_000,
        connections=4,
        timeout_seconds=2.0,
        download_seconds=10.0,
        roots=[],
        hosts=None,
        user_agent="shop-reader",
    )
    return replace(base, **changes)


def row(number: int | str, picture: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    return {"id": f"{number}", "picture": picture, "name": f"Pin {number}", "sku": "s1", "saved": "3"} | changes


def write_list(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jpg").write_bytes(PICTURE)
    return data


def ingest(
    spec: ManifestSpec, folder: Path, notes: Notes | None = None
) -> tuple[Mapping[str, int], list[dict[str, Any]], list[dict[str, Any]]]:
    quarantined = ingest_manifest(spec, folder, folder / "pins", folder / "quarantine", notes or Notes())
    return quarantined, tables.read(folder / "pins").to_pylist(), tables.read(folder / "quarantine").to_pylist()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_pins(folder: Path, suffix: str) -> None:
    write_list(folder / f"list.{suffix}", [row("007"), row("008", sku="", saved="")])
    _, pins, quarantine = ingest(spec(f"list.{suffix}"), folder)
    assert len(pins) == 2
    assert quarantine == []
    assert pins[0] == {
        "pin_id": "007",
        "image": PICTURE,
        "width": 64,
        "height": 48,
        "title": "Pin 007",
        "description": "",
        "alt_text": "",
        "board": "",
        "product_id": "s1",
        "category": "",
        "promoted": False,
        "impressions": None,
        "saves": 3,
        "clicks": None,
        "source": "shop",
        "split": "train",  # one product
    }
    assert (pins[1]["product_id"], pins[1]["saves"]) == (None, None)


def test_bad_rows_are_quarantined_with_number_and_reason(folder: Path) -> None:
    (folder / "text.jpg").write_text("I am a text\n" * 40)
    (folder / "cut.jpg").write_bytes(PICTURE[: len(PICTURE) // 2])
    (folder / "bomb.png").write_bytes(png_header(50_000, 50_000))
    (folder / "wide.png").write_bytes(png_header(2_000, 1_000))
    (folder / "heavy.jpg").write_bytes(PICTURE + b"\0" * 100_000)
    (folder / "empty.jpg").write_bytes(b"")
    cases = [
        ("a.jpg", {}, None),
        ("text.jpg", {}, "not a JPEG, PNG or WEBP image: it is text, which begins with 'I am a text"),
        ("cut.jpg", {}, "broken JPEG"),
        ("bomb.png", {}, "50000 x 50000 pixels exceed the limit of 1000000"),
        ("wide.png", {}, "2000 x 1000 pixels exceed the limit of 1000000"),
        ("heavy.jpg", {}, "more bytes than the limit of 100000"),
        ("empty.jpg", {}, "0 bytes long"),
        ("missing.jpg", {}, "cannot fetch: .*missing.jpg.*(not found|No such file)"),
        ("", {}, "image is empty"),
        ("ftp://host/a.jpg", {}, "ftp:// is not supported: use a path, file, http"),
        ("a.jpg", {"id": "0"}, "pin_id '0' occurred before"),
        ("a.jpg", {"id": " "}, "pin_id is empty"),
        ("a.jpg", {"saved": "many"}, "saves is 'many': a count is a whole number from 0"),
        ("a.jpg", {"saved": "-1"}, "saves is '-1'"),
        ("a.jpg", {"saved": "2.0"}, None),
    ]
    write_list(folder / "list.csv", [row(number, uri, **more) for number, (uri, more, _) in enumerate(cases)])
    quarantined, pins, quarantine = ingest(spec(), folder)
    assert [pin["pin_id"] for pin in pins] == ["0", "14"]
    bad = [(number, uri, why) for number, (uri, _, why) in enumerate(cases, start=1) if why]
    assert [(fault["row"], fault["uri"] or "") for fault in quarantine] == [(number, uri) for number, uri, _ in bad]
    for fault, (_, _, why) in zip(quarantine, bad, strict=True):
        with pytest.raises(ValueError, match=why):
            raise ValueError(fault["reason"])
    assert sum(quarantined.values()) == len(bad)


NO_COLUMN = r"list\.csv has no column 'name' \(ingest\.manifest\.columns\.title\); it has id, picture"
NO_PIN = r"none of the 2 rows of list\.csv became a pin: cannot fetch \(2 rows\)"


@pytest.mark.parametrize(
    ("rows", "changes", "says"),
    [
        ([{"id": "1", "picture": "a.jpg"}], {}, NO_COLUMN),
        ([], {}, r"list\.csv has no rows"),
        ([row(1, "no.jpg"), row(2, "no.jpg")], {}, NO_PIN),
        (None, {}, r"cannot read list\.csv as csv: .*(not found|No such file)"),
        (None, {"path": f"{'x' * 5000}.csv"}, "cannot read xxx.*File name too long"),
        ([row(1)], {"path": "ftp://host/list.csv"}, "ftp:// is not supported"),
    ],
)
def test_a_bad_list_is_one_sentence(
    folder: Path, rows: list[dict[str, Any]] | None, changes: dict[str, Any], says: str
) -> None:
    if rows:
        write_list(folder / "list.csv", rows)
    elif rows == []:
        (folder / "list.csv").write_text("id,picture,name,sku,saved\n")
    with pytest.raises(ValueError, match=says) as caught:
        ingest(spec(**changes), folder)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_parquet_is_one_sentence(folder: Path) -> None:
    (folder / "list.parquet").write_text("id,picture\n1,a.jpg\n" * 20)
    with pytest.raises(ValueError, match=r"cannot read list\.parquet as parquet"):
        ingest(spec("list.parquet"), folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"columns": {"pin_id": "id", "title": "name"}}, "lacks image"),
        ({"columns": {"pin_id": "a", "image": "b", "title": "c", "size": "d"}}, "size unknown"),
        ({"held_out": 0.9}, r"'held_out' in section 'manifest' is 0\.9: it must be at most 0\.5"),
        ({"held_out_by": "board"}, "held_out_by is board, which columns does not map: map it, or use product"),
        ({"columns": {"image": "b", "seller": "c"}}, "maps seller, which only held_out_by: seller reads"),
        ({"held_out_by": "city"}, "'held_out_by' in section 'manifest' is \"city\""),
        ({"max_bytes": 0}, "'max_bytes' in section 'manifest' is 0: it must be 1 or more"),
        ({"path": " "}, "ingest.manifest.path is empty: name the list"),
        *(
            ({"hosts": ["*.shop.com", "10.0.0.1", "::1", "my_bucket", host]}, "hosts has '.*': write the host alone")
            for host in ("https://shop.com", "shop.com/images", "shop.com:8080", "*", "", "shop com")
        ),
        *(({"user_agent": agent}, "user_agent is '.*': write a line of ASCII") for agent in ("", " ", "a\nb", "茶")),
        ({"max_bytes": 10**30}, "'max_bytes' in section 'manifest' is 10*: it must be at most 1e.11"),
        ({"connections": 10**6}, "'connections' in section 'manifest' is 1000000: it must be at most 1000"),
        ({"timeout_seconds": 10**6}, "'timeout_seconds' in section 'manifest' is .*at most 604800"),
        ({"download_seconds": 1e300}, "'download_seconds' in section 'manifest' is .*at most 604800"),
    ],
)
def test_a_bad_spec_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_section(ManifestSpec, "manifest", {"manifest": asdict(spec()) | changes})


def test_what_was_read_otherwise_of_images_is_noted(folder: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("teal", "red", "blue")]
    for count in (2, 3):
        frames[0].save(folder / f"{count}.png", save_all=True, append_images=frames[1:count])
    (folder / "unended.jpg").write_bytes(PICTURE[:-2])
    images = ["2.png", "3.png", "unended.jpg", "a.jpg", "2.png"]
    write_list(folder / "list.csv", [row(number % 4, image) for number, image in enumerate(images)])  # one id twice
    _, pins, _ = ingest(spec(), folder, notes := Notes())
    assert len(pins) == 4
    assert notes.to_metrics()["notes"][1:] == [
        "2 images: it is an animation of … frames, of which the first is used",
        "1 images: its end is missing, its pixels are complete",
    ]


def test_parts_of_a_list_may_be_empty_or_lack_what_others_have(folder: Path) -> None:
    (folder / "parts").mkdir()
    bare = {"id": "1", "picture": "a.jpg", "sku": "s1"}
    for number, rows in enumerate(([bare], [], [row(2)])):
        write_list(folder / "parts" / f"{number}.jsonl", rows)
    whole = replace(spec("a.jsonl"), path="parts")
    _, pins, _ = ingest(whole, folder, notes := Notes())
    assert [(pin["pin_id"], pin["title"]) for pin in pins] == [("1", ""), ("2", "Pin 2")]
    assert "part 1.jsonl of parts is empty" in notes.to_metrics()["notes"]
    write_list(folder / "parts" / "2.jsonl", [bare])
    with pytest.raises(ValueError, match=r"parts has no column 'name' .*; it has id, picture, sku"):
        ingest_manifest(whole, folder, folder / "more", folder / "bad", Notes())


def test_relative_images_lie_in_the_data_directory_or_beside_the_list(folder: Path, tmp_path: Path) -> None:
    (folder / "sub").mkdir()
    own = encode_jpeg(Image.new("RGB", (30, 20), "teal"))
    for name in ("a.jpg", "b.jpg"):
        (folder / "sub" / name).write_bytes(own)
    write_list(folder / "sub" / "list.csv", [row(1), row(2, "b.jpg"), row(3, "c.jpg"), row(4, "x" * 5000)])
    below = spec("sub/list.csv")
    _, pins, quarantine = ingest(below, folder)
    assert [pin["image"] for pin in pins] == [PICTURE, own]  # a.jpg is in both
    assert [bad["reason"].partition(": ")[0] for bad in quarantine] == ["cannot fetch"] * 2
    write_list(tmp_path / "list.csv", [row(1), row(2, "b.jpg")])
    (tmp_path / "b.jpg").write_bytes(own)
    for name in ("pins", "quarantine"):
        shutil.rmtree(folder / name)
    _, pins, quarantine = ingest(spec(str(tmp_path / "list.csv")), folder)
    assert len(pins) == 1
    assert "b.jpg lies outside of" in quarantine[0]["reason"]
    assert "name its folder in ingest.manifest.roots" in quarantine[0]["reason"]


def test_a_list_of_which_no_row_is_good_says_what_is_wrong_with_one(folder: Path) -> None:
    write_list(folder / "list.csv", [row(1, saved="1.234"), row(2, saved="N/A")])
    with pytest.raises(ValueError, match=r"saves is … \(2 rows\); of row 1: saves is '1\.234': a count is a whole"):
        ingest(spec(), folder)


def test_invisible_characters_round_ids_are_left_out_and_noted(folder: Path) -> None:
    write_list(folder / "list.csv", [row("\u200b1"), row("1\u200e", "a.jpg\ufeff")])
    _, pins, quarantine = ingest(spec(), folder, notes := Notes())
    assert ([pin["pin_id"] for pin in pins], [bad["reason"] for bad in quarantine]) == (
        ["1"], ["pin_id '1' occurred before"]
    )  # fmt: skip
    assert "spaces round pin_id were left out in 2 rows" in notes.to_metrics()["notes"]


def test_faults_of_lines_are_counted_by_what_they_are(folder: Path) -> None:
    (folder / "list.csv").write_text("id,picture,name,sku,saved\n1,a.jpg,A,s,3\n2,a.jpg\n3,a.jpg\n")
    quarantined, _, quarantine = ingest(spec(), folder)
    assert [bad["reason"].partition(":")[0] for bad in quarantine] == ["line 3", "line 4"]
    (reason,) = quarantined
    assert quarantined[reason] == 2
    assert not reason.startswith("line")


def test_more_saves_than_impressions_are_quarantined_and_none_of_them_are_not(folder: Path) -> None:
    columns = {"image": "picture", "pin_id": "id", "impressions": "seen", "saves": "saved", "clicks": "clicked"}
    counts = [("", "5", "1"), ("3", "", ""), ("3", "3", "0"), ("3", "4", ""), ("3", "", "4")]
    rows = [
        {"id": str(at), "picture": "a.jpg", "seen": seen, "saved": saved, "clicked": clicked}
        for at, (seen, saved, clicked) in enumerate(counts)
    ]
    write_list(folder / "list.csv", rows)
    quarantined, pins, quarantine = ingest(spec(columns=columns), folder)
    assert [(pin["impressions"], pin["saves"], pin["clicks"]) for pin in pins] == [
        (None, 5, 1), (3, None, None), (3, 3, 0)
    ]  # fmt: skip
    assert [(bad["row"], bad["reason"]) for bad in quarantine] == [
        (4, "saves are 4 of 3 impressions: there cannot be more than those"),
        (5, "clicks are 4 of 3 impressions: there cannot be more than those"),
    ]
    assert quarantined == {"saves are … of … impressions": 1, "clicks are … of … impressions": 1}


def test_words_and_numbers_for_promoted(folder: Path) -> None:
    words = {"true": True, "1": True, "1.0": True, "T": True, "y": True, "Yes": True,
             "FALSE": False, "0": False, "0.0": False, "f": False, "N": False, "no": False, "": False}  # fmt: skip
    columns = {"image": "picture", "pin_id": "id", "promoted": "paid"}
    rows = [{"id": f"{number}", "picture": "a.jpg", "paid": word} for number, word in enumerate([*words, "2", "on"])]
    write_list(folder / "list.csv", rows)
    _, pins, quarantine = ingest(spec(columns=columns), folder)
    assert [pin["promoted"] for pin in pins] == list(words.values())
    assert [bad["reason"] for bad in quarantine] == [
        f"promoted is '{word}': write true or false" for word in ("2", "on")
    ]


def test_a_count_that_may_be_a_thousand_is_asked_for(folder: Path) -> None:
    write_list(folder / "list.csv", [row(1, saved="1.000"), row(2, saved="12.000"), row(3, saved="3.0")])
    _, pins, quarantine = ingest(spec(), folder)
    assert [(pin["pin_id"], pin["saves"]) for pin in pins] == [("3", 3)]
    assert [bad["reason"] for bad in quarantine] == [
        "saves is '1.000': write 1000 or 1, as a point may part thousands",
        "saves is '12.000': write 12000 or 12, as a point may part thousands",
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_may_stand_in_the_names_of_folders(folder: Path, suffix: str) -> None:
    for number, name in enumerate(
        ("category=mugs", "category=cups%20%2F%20bowls", "category=__HIVE_DEFAULT_PARTITION__")
    ):
        (folder / "parts" / name).mkdir(parents=True)
        write_list(folder / "parts" / name / f"0.{suffix}", [row(number)])
    columns = spec().columns | {"category": "category"}
    whole = replace(spec(f"a.{suffix}"), path="parts", columns=columns)
    _, pins, _ = ingest(whole, folder)
    assert {pin["pin_id"]: pin["category"] for pin in pins} == {"0": "mugs", "1": "cups / bowls", "2": ""}
    other = replace(whole, columns=columns | {"board": "category"})
    assert {pin["board"] for pin in ingest_again(other, folder)} == {"mugs", "cups / bowls", ""}
    with pytest.raises(ValueError, match=r"has no column 'color' \(ingest\.manifest\.columns\.board\)"):
        ingest_again(replace(whole, columns=columns | {"board": "color"}), folder)


def ingest_again(spec: ManifestSpec, folder: Path) -> list[dict[str, Any]]:
    for name in ("pins", "quarantine"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return ingest(spec, folder)[1]


def test_a_whole_board_or_seller_is_held_out_with_its_products(folder: Path) -> None:
    shops = [f"shop {number % 8}" for number in range(64)]
    rows = [row(at, sku=f"s{at // 2}", shop=shop) for at, shop in enumerate(shops)]
    write_list(folder / "list.csv", rows)
    columns = {"pin_id": "id", "image": "picture", "product_id": "sku"}
    _, pins, _ = ingest(spec(columns=columns | {"seller": "shop"}, held_out_by="seller", held_out=0.3), folder)
    held_out = {shop for shop, pin in zip(shops, pins, strict=True) if pin["split"] != "train"}
    assert 0 < len(held_out) < 8
    assert all((pin["split"] != "train") == (shop in held_out) for shop, pin in zip(shops, pins, strict=True))
    assert [pin["image"] for pin in pins] == [PICTURE] * 64
    for name in ("pins", "quarantine"):
        shutil.rmtree(folder / name)
    by_board = spec(columns=columns | {"board": "shop"}, held_out_by="board", held_out=0.3)
    assert [pin["split"] for pin in ingest(by_board, folder)[1]] == [pin["split"] for pin in pins]


class Shop(http.server.BaseHTTPRequestHandler):
    """Serves one picture; signed addresses need their signature and refuse HEAD."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers['User-Agent']}")
        if self.path.startswith("/broken"):
            self.send_error(500)
        elif self.path == "/signed.jpg":
            self.send_error(403)
        elif self.path.startswith(("/a.jpg", "/signed.jpg?key=secret")):
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OwnShop", (Shop,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_pictures_come_over_http(folder: Path, shop: tuple[str, list[str]]) -> None:
    host, seen = shop
    paths = ["a.jpg", "signed.jpg?key=secret", "none.jpg?key=secret", "signed.jpg", "broken.jpg"]
    rows = [row(number, f"http://{host}/{path}") for number, path in enumerate(paths)]
    rows.append(row("local", (folder / "a.jpg").as_uri()))
    rows.append(row("user", "http://me:secret@127.0.0.1:1/a.jpg"))
    write_list(folder / "list.jsonl", rows)
    _, pins, quarantine = ingest(spec("list.jsonl", hosts=["127.0.0.1"]), folder)
    assert [pin["pin_id"] for pin in pins] == ["0", "1", "local"]
    assert [fault["row"] for fault in quarantine] == [3, 4, 5, 7]
    assert [fault["uri"] for fault in quarantine] == [
        f"http://{host}/none.jpg", f"http://{host}/signed.jpg", f"http://{host}/broken.jpg", "http://127.0.0.1:1/a.jpg"
    ]  # fmt: skip
    assert [fault["reason"] for fault in quarantine] == [
        "cannot fetch: the server answered 404 Not Found",
        "cannot fetch: the server answered 403 Forbidden",
        "cannot fetch: the server answered 500 Internal Server Error",
        "cannot fetch: Connection refused",
    ]
    assert "/a.jpg shop-reader" in seen
    assert seen.count("/broken.jpg shop-reader") == 3
    assert seen.count("/signed.jpg shop-reader") == 1


def test_the_list_itself_may_be_remote(folder: Path, shop: tuple[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=rf"cannot read http://{shop[0]}/list\.csv as csv") as caught:
        ingest(spec(f"http://{shop[0]}/list.csv?key=secret"), folder)
    assert "secret" not in str(caught.value)


def test_without_an_id_the_image_is_the_id_and_without_a_product_it_is_one(folder: Path) -> None:
    (folder / "b.jpg").write_bytes(encode_jpeg(Image.new("RGB", (30, 20), "teal")))
    write_list(folder / "list.csv", [row(1), row(2, "b.jpg"), row(3), row(4, "no.jpg"), row(5, "no.jpg")])
    bare = spec(columns={"image": "picture"}, held_out=0.5)
    _, pins, quarantine = ingest(bare, folder)
    assert [pin["pin_id"] for pin in pins] == [blake2b(PICTURE, digest_size=8).hexdigest(), pins[1]["pin_id"]]
    assert [pin["product_id"] for pin in pins] == [pin["pin_id"] for pin in pins]
    assert {pin["split"] for pin in pins} == {"train", "unseen_product"}
    assert pins[0]["title"] == ""
    assert [(bad["row"], bad["reason"].partition(":")[0]) for bad in quarantine] == [
        (3, "the same image occurred before"), (4, "cannot fetch"), (5, "cannot fetch")
    ]  # fmt: skip


def test_order_is_that_of_the_list(folder: Path) -> None:
    write_list(folder / "list.csv", [row(number) for number in range(300)])
    _, pins, _ = ingest(spec(), folder)
    assert [pin["pin_id"] for pin in pins] == [str(number) for number in range(300)]


def test_transparent_pictures_stay_png(folder: Path) -> None:
    picture = encode_png(Image.new("RGBA", (30, 20), (10, 20, 30, 128)))
    (folder / "b.png").write_bytes(picture)
    write_list(folder / "list.csv", [row(1, "b.png")])
    _, pins, _ = ingest(spec(), folder)
    assert pins[0]["image"] == picture


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("https://me:word@host:1/a/b.jpg?X-Signature=abc#x", "https://host:1/a/b.jpg"),
        ("s3://bucket/key@2x.jpg", "s3://bucket/key@2x.jpg"),
        (None, None),
    ],
)
def test_addresses_are_shown_without_credentials(address: str | None, public: str | None) -> None:
    assert strip_credentials(address) == public


def test_messages_are_shown_without_credentials() -> None:
    error = ValueError("Error for url (https://u:p@host/a?sig=1)\nsee `http://x/?token=2`")
    assert format_error(error, "https://u:p@host/a?sig=1") == "Error for url (https://host/a) see `http://x/`"


def test_ids_and_paths_are_trimmed_and_it_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(" 1", " a.jpg "), row("2\t", "a.jpg", sku=" s1"), row("1 ", "a.jpg"), row(3, name=" Mug ")]
    write_list(folder / "list.csv", rows)
    notes = Notes()
    _, pins, quarantine = ingest(spec(), folder, notes)
    assert [pin["pin_id"] for pin in pins] == ["1", "2", "3"]
    assert {pin["product_id"] for pin in pins} == {"s1"}
    assert pins[2]["title"] == " Mug ", "texts stay as they are"
    assert [bad["reason"] for bad in quarantine] == ["pin_id '1' occurred before"]
    assert "spaces round pin_id were left out in 3 rows" in capsys.readouterr().err
    assert "spaces round image were left out in 1 rows" in notes.to_metrics()["notes"]


def test_images_may_be_in_the_list_itself(folder: Path) -> None:
    other = encode_png(Image.new("RGBA", (30, 20), (1, 2, 3, 128)))
    rows: list[dict[str, Any]] = [
        {"id": 1.0, "picture": {"bytes": PICTURE, "path": "x.jpg"}},
        {"id": 2.0, "picture": {"bytes": other, "path": None}},
        {"id": 3.0, "picture": {"bytes": None, "path": "a.jpg"}},
        {"id": 4.0, "picture": {"bytes": b"", "path": None}},
        {"id": 5.0, "picture": None},
        {"id": 6.0, "picture": {"bytes": b"\xffno image", "path": "y.jpg"}},
    ]
    write_list(folder / "structs.parquet", rows)
    columns = {"pin_id": "id", "image": "picture"}
    _, pins, quarantine = ingest(spec("structs.parquet", columns=columns), folder)
    assert [(pin["pin_id"], pin["image"]) for pin in pins] == [("1", PICTURE), ("2", other), ("3", PICTURE)]
    assert [bad["row"] for bad in quarantine] == [4, 5, 6]
    assert quarantine[1]["reason"] == "image is empty"
    assert quarantine[2]["uri"] == "y.jpg"

    plain = folder / "plain"
    plain.mkdir()
    (plain / "a.jpg").write_bytes(PICTURE)
    write_list(plain / "list.parquet", [{"id": 10**16 + 1, "picture": PICTURE}, {"id": 7, "picture": b"a.jpg"}])
    _, pins, _ = ingest(spec("list.parquet", columns=columns), plain)
    assert [(pin["pin_id"], pin["image"]) for pin in pins] == [("10000000000000001", PICTURE), ("7", PICTURE)]


def test_an_image_that_cannot_be_written_stops_no_list(folder: Path) -> None:
    strip = np.random.default_rng(0).integers(0, 65535, (30, 66_000), dtype=np.uint16)
    Image.fromarray(strip).save(folder / "strip.png")
    write_list(folder / "list.csv", [row(1), row(2, "strip.png"), row(3)])
    _, pins, quarantine = ingest(spec(max_bytes=10**7, max_pixels=10**7), folder)
    assert {"1", "3"} <= {pin["pin_id"] for pin in pins}
    assert len(pins) + len(quarantine) == 3


def test_a_row_with_a_fault_is_not_fetched_for(folder: Path, shop: tuple[str, list[str]]) -> None:
    host, seen = shop
    faulty = [row(2, f"http://{host}/a.jpg", saved="many"), row(1, f"http://{host}/a.jpg")]
    write_list(folder / "list.csv", [row(1), *faulty])
    _, pins, quarantine = ingest(spec(), folder)
    assert (len(pins), len(quarantine), seen) == (1, 2, [])


def test_images_elsewhere_are_said_to_be_unseen(
    folder: Path, shop: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ["a.jpg", f"http://{shop[0]}/a.jpg", str(folder / "a.jpg"), (folder / "a.jpg").as_uri(), "../a.jpg"]
    write_list(folder / "list.csv", [row(number, address) for number, address in enumerate(addresses)])
    ingest(spec(hosts=["127.0.0.1"]), folder)
    assert "1 images lie outside the data directory: whether they change is not seen" in capsys.readouterr().err


LONG_CELL = """
import resource, sys
from pathlib import Path
from canvas.pins.fallbacks import Notes
from canvas.sources.lists import Format
from canvas.sources.manifest import ManifestSpec, ingest_manifest

folder = Path(sys.argv[1])
spec = ManifestSpec(path="list.csv", format="csv", name="shop", columns={"image": "photo", "title": "title"},
                    held_out=0.2, max_bytes=10**6, max_pixels=10**6, connections=4, timeout_seconds=2.0,
                    download_seconds=10.0, roots=[], hosts=None, user_agent="fuzz", held_out_by="product")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest_manifest(spec, folder, folder / "pins", folder / "quarantine", Notes())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("length", [130_000, 900_000])
def test_a_long_cell_costs_its_length(folder: Path, length: int) -> None:
    (folder / "b.jpg").write_bytes(encode_jpeg(Image.new("RGB", (30, 20), "teal")))
    (folder / "list.csv").write_text(f"photo,title\na.jpg,{'x' * length}\nb.jpg,short\n")
    done = subprocess.run([sys.executable, "-c", LONG_CELL, folder], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300_000, "kilobytes, the imports of the image reader among them"
    assert [len(title) for title in tables.read(folder / "pins")["title"].to_pylist()] == [length, 5]
