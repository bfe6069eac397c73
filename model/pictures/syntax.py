"""The transfer syntaxes: how a data set is written and what its frames are stored as.

What is found in the file overrules what its transfer syntax says; this table is for what cannot be
seen in the bytes, and for naming an encoding that is refused.

Source:
    DICOM PS3.5 section 10, sections 8.2.5 to 8.2.8 (video) and annex A, PS3.6 annex A (unique
    identifiers); ISO 13818-1 (transport and program streams), ITU-T H.264 and H.265 annex B (bare
    bit streams).
"""

from dataclasses import dataclass
from enum import Enum

from model.errors import UnsupportedSyntaxError

_ROOT = "1.2.840.10008.1.2"
_TRANSPORT_PACKET_BYTES = 188


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are written."""

    is_explicit: bool
    is_little: bool

    @property
    def order(self) -> str:
        """The byte order as `struct` spells it."""
        return "<" if self.is_little else ">"


IMPLICIT_LITTLE = Encoding(is_explicit=False, is_little=True)
EXPLICIT_LITTLE = Encoding(is_explicit=True, is_little=True)
EXPLICIT_BIG = Encoding(is_explicit=True, is_little=False)


class Storage(Enum):
    """What the pixel data are."""

    FRAMES = "frames"
    FILM = "film"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax.

    Attributes:
        is_deflated: the whole data set is one deflate stream.
        demuxer: FFmpeg's name of a film's bare bit stream, empty for everything else.
    """

    name: str
    encoding: Encoding = EXPLICIT_LITTLE
    storage: Storage = Storage.FRAMES
    is_deflated: bool = False
    demuxer: str = ""


UNKNOWN_SYNTAX = Syntax("no transfer syntax given", IMPLICIT_LITTLE)


def _film(name: str, demuxer: str) -> Syntax:
    return Syntax(name, storage=Storage.FILM, demuxer=demuxer)


def _refused(name: str) -> Syntax:
    return Syntax(name, storage=Storage.REFUSED)


_SYNTAXES = {
    "": Syntax("Implicit VR Little Endian", IMPLICIT_LITTLE),
    ".1": Syntax("Explicit VR Little Endian"),
    ".1.98": Syntax("Encapsulated Uncompressed Explicit VR Little Endian"),
    ".1.99": Syntax("Deflated Explicit VR Little Endian", is_deflated=True),
    ".2": Syntax("Explicit VR Big Endian", EXPLICIT_BIG),
    ".5": Syntax("RLE Lossless"),
    ".4.50": Syntax("JPEG Baseline"),
    ".4.51": Syntax("JPEG Extended"),
    ".4.57": Syntax("JPEG Lossless"),
    ".4.70": Syntax("JPEG Lossless, first-order prediction"),
    ".4.80": Syntax("JPEG-LS Lossless"),
    ".4.81": Syntax("JPEG-LS Near-Lossless"),
    ".4.90": Syntax("JPEG 2000 Lossless"),
    ".4.91": Syntax("JPEG 2000"),
    ".4.92": _refused("JPEG 2000 Multi-component Lossless"),
    ".4.93": _refused("JPEG 2000 Multi-component"),
    ".4.94": _refused("JPIP Referenced"),
    ".4.95": _refused("JPIP Referenced Deflate"),
    ".4.100": _film("MPEG-2 Main Level", "mpegvideo"),
    ".4.101": _film("MPEG-2 High Level", "mpegvideo"),
    ".4.102": _film("MPEG-4 AVC/H.264", "h264"),
    ".4.103": _film("MPEG-4 AVC/H.264 BD-compatible", "h264"),
    ".4.104": _film("MPEG-4 AVC/H.264 for 2D Video", "h264"),
    ".4.105": _film("MPEG-4 AVC/H.264 for 3D Video", "h264"),
    ".4.106": _film("MPEG-4 AVC/H.264 Stereo", "h264"),
    ".4.107": _film("HEVC/H.265 Main Profile", "hevc"),
    ".4.108": _film("HEVC/H.265 Main 10 Profile", "hevc"),
    ".4.110": _refused("JPEG XL Lossless"),
    ".4.111": _refused("JPEG XL JPEG Recompression"),
    ".4.112": _refused("JPEG XL"),
    ".4.201": Syntax("High-Throughput JPEG 2000 Lossless"),
    ".4.202": Syntax("High-Throughput JPEG 2000 with RPCL Options Lossless"),
    ".4.203": Syntax("High-Throughput JPEG 2000"),
    ".4.204": _refused("JPIP HTJ2K Referenced"),
    ".4.205": _refused("JPIP HTJ2K Referenced Deflate"),
    ".7.1": _refused("SMPTE ST 2110-20 Uncompressed Progressive Active Video"),
    ".7.2": _refused("SMPTE ST 2110-20 Uncompressed Interlaced Active Video"),
    ".7.3": _refused("SMPTE ST 2110-30 PCM Digital Audio"),
    ".8.1": _refused("Deflated Image Frame Compression"),
}
_FRAGMENTABLE = ".1"
"""What the fragmentable form of a film's syntax adds to its identifier."""


def _forms(suffix: str, syntax: Syntax) -> tuple[str, ...]:
    # HEVC is the one film without a fragmentable form.
    if syntax.storage is Storage.FILM and syntax.demuxer != "hevc":
        return suffix, suffix + _FRAGMENTABLE
    return (suffix,)


READ_SYNTAXES = tuple(
    _ROOT + form
    for suffix, syntax in _SYNTAXES.items()
    if syntax.storage is not Storage.REFUSED
    for form in _forms(suffix, syntax)
)
"""Identifiers of all that are read."""


def syntax_of(uid: str) -> Syntax:
    """Look up a transfer syntax.

    Raises:
        UnsupportedSyntaxError: a private or unknown one, or one that is known and not read.
    """
    if not uid:
        return UNKNOWN_SYNTAX
    syntax = _find(uid.removeprefix(_ROOT)) if uid.startswith(_ROOT) else None
    if syntax is None:
        raise UnsupportedSyntaxError(
            "the transfer syntax is private or unknown: export the clip as JPEG or uncompressed"
        )
    if syntax.storage is Storage.REFUSED:
        raise UnsupportedSyntaxError(
            f"{syntax.name} is not read: export the clip as JPEG, JPEG 2000 or uncompressed"
        )
    return syntax


def _find(suffix: str) -> Syntax | None:
    if suffix in _SYNTAXES:
        return _SYNTAXES[suffix]
    film = _SYNTAXES.get(suffix.removesuffix(_FRAGMENTABLE))
    return film if film is not None and film.storage is Storage.FILM else None


def container_of(head: bytes, bare: str) -> str:
    """FFmpeg's name of the container that a film begins as, ``bare`` where it has none.

    Args:
        head: the film's beginning, of two transport packets at least.
        bare: `Syntax.demuxer`, the name of a bare bit stream.
    """
    if head[:1] == b"G" and head[_TRANSPORT_PACKET_BYTES : _TRANSPORT_PACKET_BYTES + 1] == b"G":
        return "mpegts"
    if head[4:8] == b"ftyp":
        return "mov"
    return "mpeg" if head.startswith(b"\0\0\x01\xba") else bare
