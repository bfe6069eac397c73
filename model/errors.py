"""What goes wrong on the model's side.

    EchoError
      FrameError        a frame that cannot be what it claims to be
      StateError        a memory of another model, size or version
      WeightsError      a weights file that is missing, broken or of another network
      MeasurementError  a measurement asked for with arguments that cannot be measured

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
