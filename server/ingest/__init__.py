"""Files into frames: DICOM, zipped DICOM and video, opened with bounds."""

from server.ingest.clip import Clip, IngestLimits, TimeBase
from server.ingest.door import open_clip
from server.ingest.errors import (
    AmbiguousArchiveError,
    DecodeFailedError,
    EmptyFileError,
    IngestError,
    MalformedHeaderError,
    NoPixelsError,
    NotAClipError,
    TooLargeError,
    TooManyFramesError,
    TooSlowError,
    TruncatedError,
    UnsafeArchiveError,
    UnsupportedModalityError,
    UnsupportedObjectError,
    UnsupportedPixelsError,
    UnsupportedSyntaxError,
)

__all__ = [
    "AmbiguousArchiveError",
    "Clip",
    "DecodeFailedError",
    "EmptyFileError",
    "IngestError",
    "IngestLimits",
    "MalformedHeaderError",
    "NoPixelsError",
    "NotAClipError",
    "TimeBase",
    "TooLargeError",
    "TooManyFramesError",
    "TooSlowError",
    "TruncatedError",
    "UnsafeArchiveError",
    "UnsupportedModalityError",
    "UnsupportedObjectError",
    "UnsupportedPixelsError",
    "UnsupportedSyntaxError",
    "open_clip",
]
