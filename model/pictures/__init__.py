"""How the pictures of a DICOM clip are stored, and the luma that they become.

One rule for what is served and for what is trained on: the header says what a picture is made of
(`make_layout`), the pixel data show where each one lies, the first one chooses the decoder of all
(`find_pictures`), and the `Decoder` makes luma of them. What opens a file and reads its header is
not here: the server trusts no file, training takes pydicom.
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
from model.pictures.contrast import DeclaredContrast, declare_contrast
from model.pictures.decoder import (
    Decoder,
    DecodeStream,
    choose_compressed,
    decode_by_library,
    in_rows,
)
from model.pictures.fragments import UNDEFINED, PixelData, walk_fragments
from model.pictures.jpeg import decode_colours, decode_luma, read_jpeg
from model.pictures.layout import DeclaredPixels, Layout, insist, make_layout
from model.pictures.libraries import LIBRARIES
from model.pictures.palette import COLOURS, DeclaredTable
from model.pictures.pixels import (
    COLOUR_LOOK_FRAMES,
    COLOURED_SHARE,
    coloured_share,
    expand_range,
)
from model.pictures.stored import StoredPictures, find_pictures
from model.pictures.syntax import (
    EXPLICIT_LITTLE,
    READ_SYNTAXES,
    Encoding,
    Storage,
    Syntax,
    container_of,
    syntax_of,
)
from model.pictures.window import Window

__all__ = [
    "COLOURED_SHARE",
    "COLOURS",
    "COLOUR_LOOK_FRAMES",
    "EXPLICIT_LITTLE",
    "LIBRARIES",
    "READ_SYNTAXES",
    "UNDEFINED",
    "DeclaredContrast",
    "DeclaredPixels",
    "DeclaredTable",
    "DecodeFailedError",
    "DecodeStream",
    "Decoder",
    "Encoding",
    "IngestError",
    "Layout",
    "MalformedHeaderError",
    "PixelData",
    "Storage",
    "StoredPictures",
    "Stream",
    "Syntax",
    "TruncatedError",
    "UnsupportedPixelsError",
    "UnsupportedSyntaxError",
    "Window",
    "choose_compressed",
    "coloured_share",
    "container_of",
    "declare_contrast",
    "decode_by_library",
    "decode_colours",
    "decode_luma",
    "expand_range",
    "find_pictures",
    "in_rows",
    "insist",
    "make_layout",
    "read_jpeg",
    "read_stream",
    "starts_a_stream",
    "syntax_of",
    "walk_fragments",
]
