"""An encoded image taken apart."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("JPEG", "PNG", "WEBP")
CONVERT = "convert it to JPEG or PNG first"


class UnreadFormError(ValueError):
    """A sound image in a form of its format that is not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An encoded image without its side chunks, and what they said."""

    format: str  # of FORMATS
    width: int  # before it is turned
    height: int
    data: bytes  # in the same format, of the first frame; a decoder shows its pixels as stored
    profile: bytes | None = None  # ICC; may be none that can be used
    gamma: float | None = None  # exponent that light was stored with, where a PNG says it and has no profile; 1: linear
    orientation: int = 1  # EXIF, 1 to 8; 1: upright
    frames: int = 1
    depth: int = 8  # bits a channel
    colour_key: tuple[int, ...] | None = None  # of a PNG without alpha: the grey or RGB, in `depth` bits, that is clear
    colour_note: str | None = None  # what its side chunks say of colours that is not done
    ended: bool = True  # False: the file stops after its pixels, without the format's end
