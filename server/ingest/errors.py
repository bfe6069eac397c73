"""What can be wrong with an uploaded clip.

    IngestError
      EmptyFileError           empty                        no byte at all
      NotAClipError            not_a_clip                   no DICOM, zip, MP4, MOV, AVI or GIF
      MalformedHeaderError     malformed_header             a header that contradicts itself
      TruncatedError           truncated                    ends before the first whole frame
      UnsupportedModalityError unsupported_modality         DICOM, but not ultrasound
      UnsupportedObjectError   unsupported_object           ultrasound in 3-D or in private data
      NoPixelsError            no_pixels                    a report, a directory: no pictures
      UnsupportedSyntaxError   unsupported_transfer_syntax  an encoding that nothing here reads
      UnsupportedPixelsError   unsupported_pixels           a pixel layout not read here
      TooLargeError            too_large                    more bytes or pixels than allowed
      TooManyFramesError       too_many_frames              more frames than allowed
      DecodeFailedError        decode_failed                the pictures inside are broken
      TooSlowError             too_slow                     decoding took longer than allowed
      UnsafeArchiveError       unsafe_archive               a zip that breaks the rules for zips
      AmbiguousArchiveError    ambiguous_archive            a zip of several clips

Every message says what came, what was wanted and what the sender can do; none holds a patient's
name, a file's name or a pixel.
"""

from model.pictures import (
    DecodeFailedError,
    IngestError,
    MalformedHeaderError,
    TruncatedError,
    UnsupportedPixelsError,
    UnsupportedSyntaxError,
)

__all__ = [
    "AmbiguousArchiveError",
    "DecodeFailedError",
    "EmptyFileError",
    "IngestError",
    "MalformedHeaderError",
    "NoPixelsError",
    "NotAClipError",
    "TooLargeError",
    "TooManyFramesError",
    "TooSlowError",
    "TruncatedError",
    "UnsafeArchiveError",
    "UnsupportedModalityError",
    "UnsupportedObjectError",
    "UnsupportedPixelsError",
    "UnsupportedSyntaxError",
]


class EmptyFileError(IngestError):
    """No byte at all."""

    code = "empty"


class NotAClipError(IngestError):
    """Neither DICOM, zip, MP4, MOV, AVI nor GIF."""

    code = "not_a_clip"


class UnsupportedModalityError(IngestError):
    """DICOM, but not ultrasound."""

    code = "unsupported_modality"


class UnsupportedObjectError(IngestError):
    """Ultrasound of a kind not read here: a 3-D volume or a vendor's private data."""

    code = "unsupported_object"


class NoPixelsError(IngestError):
    """An object without pictures."""

    code = "no_pixels"


class TooLargeError(IngestError):
    """More bytes or pixels than allowed."""

    code = "too_large"


class TooManyFramesError(IngestError):
    """More frames than allowed."""

    code = "too_many_frames"


class TooSlowError(IngestError):
    """Decoding took longer than allowed."""

    code = "too_slow"


class UnsafeArchiveError(IngestError):
    """A zip that breaks the rules for zips."""

    code = "unsafe_archive"


class AmbiguousArchiveError(IngestError):
    """A zip of several clips."""

    code = "ambiguous_archive"
