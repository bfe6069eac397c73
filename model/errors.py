"""What goes wrong on the model's side.

    EchoError
      FrameError        a frame that cannot be what it claims to be
      StateError        a memory of another model, size or version
      WeightsError      a weights file that is missing, broken or of another network
      MeasurementError  a measurement asked for with arguments that cannot be measured
      IngestError       a file that cannot become a clip; the server knows more of its kind
        MalformedHeaderError  TruncatedError  UnsupportedSyntaxError  UnsupportedPixelsError
        DecodeFailedError

Each class has a stable ``code``; the server maps codes to HTTP statuses and close codes.
"""

from typing import ClassVar


class EchoError(Exception):
    """Root of every error this project raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class FrameError(EchoError):
    """A frame that cannot be what it claims to be."""

    code = "bad_frame"


class StateError(EchoError):
    """A memory of another model, size or version."""

    code = "bad_state"


class WeightsError(EchoError):
    """A weights file that is missing, broken or of another network."""

    code = "bad_weights"


class MeasurementError(EchoError):
    """A measurement asked for with arguments that cannot be measured."""

    code = "bad_measurement"


class IngestError(EchoError):
    """A file that cannot become a clip."""

    code = "bad_clip"


class MalformedHeaderError(IngestError):
    """A DICOM header that breaks off or contradicts itself."""

    code = "malformed_header"


class TruncatedError(IngestError):
    """A file that ends before its first whole frame."""

    code = "truncated"


class UnsupportedSyntaxError(IngestError):
    """An encoding that no decoder here reads."""

    code = "unsupported_transfer_syntax"


class UnsupportedPixelsError(IngestError):
    """A pixel layout not read here."""

    code = "unsupported_pixels"


class DecodeFailedError(IngestError):
    """The pictures inside are broken."""

    code = "decode_failed"
