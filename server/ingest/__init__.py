"""Files into frames: DICOM, zipped DICOM and video, opened with bounds."""

from model.pictures import decode_colours, decode_luma, read_jpeg
from server.ingest.archive import unpack_study
from server.ingest.clip import WARNINGS, Clip, IngestLimits, TimeBase
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
from server.ingest.sample import SampleClip, read_sample, sample_path

__all__ = [
    "WARNINGS",
    "AmbiguousArchiveError",
    "Clip",
    "DecodeFailedError",
    "EmptyFileError",
    "IngestError",
    "IngestLimits",
    "MalformedHeaderError",
    "NoPixelsError",
    "NotAClipError",
    "SampleClip",
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
    "decode_colours",
    "decode_luma",
    "open_clip",
    "read_jpeg",
    "read_sample",
    "sample_path",
    "unpack_study",
]
