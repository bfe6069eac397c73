"""How the pictures of a DICOM clip are stored, and the luma that they become.

One rule for what is served and for what is trained on: a header says how its pixels lie
(`DeclaredPixels`, `make_layout`), the first picture chooses how all are decoded (`choose_native`,
`choose_compressed`), and the `Decoder` makes luma of each. Nothing here opens a file or walks one.
"""

from model.errors import (
    DecodeFailedError,
    IngestError,
    MalformedHeaderError,
    TruncatedError,
    UnsupportedPixelsError,
    UnsupportedSyntaxError,
)
from model.pictures.codestream import Stream, read_stream, starts_a_stream
from model.pictures.decoder import (
    Decoder,
    DecodeStream,
    choose_compressed,
    choose_native,
    decode_by_library,
    in_rows,
    is_end_whole,
)
from model.pictures.jpeg import decode_luma, read_jpeg
from model.pictures.layout import (
    DeclaredPixels,
    Layout,
    as_stored,
    insist,
    make_layout,
    swap_words,
)
from model.pictures.libraries import LIBRARIES
from model.pictures.palette import COLOURS, DeclaredTable
from model.pictures.pixels import COLOURED_SHARE, coloured_share, expand_range
from model.pictures.syntax import (
    EXPLICIT_LITTLE,
    READ_SYNTAXES,
    Encoding,
    Storage,
    Syntax,
    container_of,
    syntax_of,
)

__all__ = [
    "COLOURED_SHARE",
    "COLOURS",
    "EXPLICIT_LITTLE",
    "LIBRARIES",
    "READ_SYNTAXES",
    "DeclaredPixels",
    "DeclaredTable",
    "DecodeFailedError",
    "DecodeStream",
    "Decoder",
    "Encoding",
    "IngestError",
    "Layout",
    "MalformedHeaderError",
    "Storage",
    "Stream",
    "Syntax",
    "TruncatedError",
    "UnsupportedPixelsError",
    "UnsupportedSyntaxError",
    "as_stored",
    "choose_compressed",
    "choose_native",
    "coloured_share",
    "container_of",
    "decode_by_library",
    "decode_luma",
    "expand_range",
    "in_rows",
    "insist",
    "is_end_whole",
    "make_layout",
    "read_jpeg",
    "read_stream",
    "starts_a_stream",
    "swap_words",
    "syntax_of",
]
