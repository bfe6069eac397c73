"""What a file is, by its first bytes; names and claimed types are never looked at."""

from enum import Enum
from typing import Literal

SNIFF_BYTES = 512
"""How much of a file's beginning `sniff` wants."""

_QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")


class Kind(Enum):
    """The kinds of files that are opened; a film's value is its demuxer's name."""

    DICOM = "dicom"
    ZIP = "zip"
    MP4 = "mov"
    AVI = "avi"
    GIF = "gif"


def sniff(head: bytes) -> Kind | None:
    """Tell a file's kind from its first bytes, None where it is none of ours."""
    if head[128:132] == b"DICM":
        return Kind.DICOM
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return Kind.ZIP
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return Kind.GIF
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Kind.AVI
    if head[4:8] in _QUICKTIME_ATOMS:
        return Kind.MP4
    if begins_like_a_data_set(head) or begins_like_a_data_set(head[1:]):
        return Kind.DICOM  # with a stray byte it is refused, but as what it is
    return None


def begins_like_a_data_set(head: bytes) -> bool:
    """Recognise DICOM without preamble: a first element of group 0002 or 0008, low and short."""
    if len(head) < 16 or head[:2] not in _FIRST_GROUPS:
        return False
    order: Literal["little", "big"] = "big" if head[:2] == b"\x00\x08" else "little"
    element = int.from_bytes(head[2:4], order)
    if head[4:6].isalpha() and head[4:6].isupper():
        return element <= 0x0100
    return element <= 0x0100 and order == "little" and int.from_bytes(head[4:8], order) <= 1024
