"""What goes wrong on the server's side, and the one table from error code to wire code.

EchoError                          (model/errors.py: FrameError StateError WeightsError ...)
  SettingsError                    the server must not start like this
  ProtocolError                    what a streaming client sent
    MalformedMessageError  UnknownMessageError  HelloExpectedError  UnsupportedCodecError
    UnknownModelError  FrameSizeError  UndecodableFrameError  MessageTooBigError
    CreditError  IdleError  SlowReaderError  FencedError  SocketGoneError
    ResumeError: SnapshotError     what was kept of a session cannot be read
  StoreError                       sessions or clips cannot be kept beyond this process now
  RecordingError                   a log of a session that cannot be read
  IngestError                      what a clip is not (server/ingest/errors.py)
  RequestError                     what an HTTP request asked for
    BadRequestError  MethodError  BodyTooLargeError  FileTooLargeError  MediaTypeError
    NotAcceptableError  AnotherStudyError  NotFoundError  NotFinishedError  NotAvailableError
    DeidentifyError  UnauthorizedError  ForbiddenError  ForeignPageError
  StorageError                     no room left for an upload
  AdmissionError                   full, try later
    DrainingError                  going away, try elsewhere
  EngineError                      ends this session, others go on
    EngineDeadError                nothing goes on
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from model import EchoError

CLOSED_BY_CHOICE = 1000
"""Close code of a client that is done (RFC 6455 section 7.4.1)."""


class SettingsError(EchoError):
    """The server must not start like this."""

    code = "bad_settings"


class ProtocolError(EchoError):
    """A streaming client broke the protocol."""

    code = "protocol"


class MalformedMessageError(ProtocolError):
    """Not JSON, not of the documented shape, or a broken frame header."""

    code = "malformed_message"


class UnknownMessageError(ProtocolError):
    """A control message of a type that this version does not know."""

    code = "unknown_message"


class HelloExpectedError(ProtocolError):
    """The first message must be hello, and only the first."""

    code = "hello_expected"


class UnsupportedCodecError(ProtocolError):
    """A codec that this server cannot decode, or another one than hello named."""

    code = "unsupported_codec"


class UnknownModelError(ProtocolError):
    """A model that this server does not serve."""

    code = "unknown_model"


class FrameSizeError(ProtocolError):
    """A frame of another size than hello declared."""

    code = "wrong_size"


class UndecodableFrameError(ProtocolError):
    """A payload that its codec cannot decode."""

    code = "undecodable_frame"


class MessageTooBigError(ProtocolError):
    """A message above the size limit."""

    code = "message_too_big"


class CreditError(ProtocolError):
    """More unanswered frames than the credit window allows."""

    code = "credit_overrun"


class IdleError(ProtocolError):
    """Silence for too long; a session is parked, a request is given up."""

    code = "idle_timeout"
    retryable = True


class SlowReaderError(ProtocolError):
    """Answers are not being read; the session is parked."""

    code = "slow_reader"
    retryable = True


class FencedError(ProtocolError):
    """Another socket resumed this session."""

    code = "fenced"


class ResumeError(ProtocolError):
    """A resume token that names no parked session, or hello does not fit that session."""

    code = "cannot_resume"


class SnapshotError(ResumeError):
    """What was kept of a session is damaged, tampered with, or made by another model or version."""


class StoreError(EchoError):
    """What sessions or clips are kept in cannot be reached, or is broken."""

    code = "store_unavailable"
    retryable = True


class RecordingError(EchoError):
    """A log of a session that cannot be read, or not be gone through here."""

    code = "bad_recording"


class SocketGoneError(ProtocolError):
    """The client closed its socket, or it broke; nobody is there to be told.

    Attributes:
        is_farewell: it closed with 1000, so it does not mean to come back.
    """

    code = "socket_gone"
    retryable = True

    def __init__(self, close_code: int | None = None) -> None:
        super().__init__("the client left")
        self.is_farewell = close_code == CLOSED_BY_CHOICE


class RequestError(EchoError):
    """An HTTP request that cannot be met; subclasses say why."""

    code = "bad_request"


class BadRequestError(RequestError):
    """A parameter or body of the wrong shape."""


class MethodError(RequestError):
    """A path that is here, but not for this method."""

    code = "method_not_allowed"


class BodyTooLargeError(RequestError):
    """An upload above the limit."""

    code = "too_large"


class FileTooLargeError(RequestError):
    """One file of an upload above the limit of a file."""

    code = "too_large"


class ForeignPageError(RequestError):
    """A browser page of another origin."""

    code = "foreign_page"


class MediaTypeError(RequestError):
    """A payload of a type that is not taken."""

    code = "unsupported_media_type"


class NotAcceptableError(RequestError):
    """An answer of a type that is not made."""

    code = "not_acceptable"


class AnotherStudyError(RequestError):
    """An instance of another study than the one that the path names."""

    code = "another_study"


class NotFoundError(RequestError):
    """Nothing of that name is here."""

    code = "not_found"


class NotFinishedError(RequestError):
    """The clip is still being worked on."""

    code = "not_finished"
    retryable = True


class NotAvailableError(RequestError):
    """This kind of result does not exist for this clip."""

    code = "not_available"


class EditError(RequestError):
    """An outline that no ventricle, wall or atrium can have, or a frame that is not there."""

    code = "bad_edit"


class StaleError(RequestError):
    """A correction of a result that somebody corrected meanwhile."""

    code = "stale_revision"


class DeidentifyError(RequestError):
    """A picture that may show who the patient is, and no way to tell where."""

    code = "cannot_deidentify"


class UnauthorizedError(RequestError):
    """No key, an unknown key, or a page of another origin."""

    code = "unauthorized"


class ForbiddenError(RequestError):
    """A key that does not open this."""

    code = "forbidden"


class StorageError(EchoError):
    """No room left for an upload; what is stored is safe."""

    code = "storage_full"
    retryable = True


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk into our error; other errors of the system pass.

    Raises:
        StorageError: no room is left, none of what this user may have, or a disk only to be read.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageError(f"the disk takes no more ({error.strerror}); try later") from error
        raise


class AdmissionError(EchoError):
    """Full: as many sessions or clips as the server takes, or as it can keep up with.

    Attributes:
        retry_after_s: when asking again may be worth while.
    """

    code = "full"
    retryable = True
    retry_after_s = 5.0


class DrainingError(AdmissionError):
    """The server is going away."""

    code = "draining"


class EngineError(EchoError):
    """A step failed; this session ends, others go on."""

    code = "engine_failed"


class EngineDeadError(EngineError):
    """The device is gone; nothing goes on."""

    code = "engine_dead"
    retryable = True


class WireCodes:
    """Where each error code leads: HTTP statuses and websocket close codes, once.

    Source:
        Close codes 1000-1015: RFC 6455 section 7.4.1 and the IANA registry; 4000-4999 are ours.
    """

    HTTP: ClassVar[dict[str, int]] = {
        "bad_frame": 422,
        "bad_measurement": 422,
        "bad_clip": 422,
        "not_a_clip": 415,
        "empty": 422,
        "unsupported_modality": 422,
        "unsupported_object": 422,
        "no_pixels": 422,
        "truncated": 422,
        "malformed_header": 422,
        "unsupported_transfer_syntax": 415,
        "unsupported_pixels": 415,
        "too_large": 413,
        "too_many_frames": 413,
        "too_slow": 413,
        "decode_failed": 422,
        "unsafe_archive": 422,
        "ambiguous_archive": 422,
        "bad_request": 400,
        "method_not_allowed": 405,
        "idle_timeout": 408,
        "not_acceptable": 406,
        "another_study": 409,
        "unsupported_media_type": 415,
        "unknown_model": 404,
        "unauthorized": 401,
        "foreign_page": 403,
        "forbidden": 403,
        "not_found": 404,
        "not_available": 404,
        "cannot_deidentify": 422,
        "bad_edit": 422,
        "stale_revision": 412,
        "not_finished": 409,
        "storage_full": 507,
        "full": 503,
        "store_unavailable": 503,
        "overtaken": 503,
        "draining": 503,
        "engine_dead": 503,
    }
    CLOSE: ClassVar[dict[str, int]] = {
        "bad_frame": 1007,
        "malformed_message": 1007,
        "undecodable_frame": 1007,
        "wrong_size": 1007,
        "unknown_message": 1003,
        "unsupported_codec": 1003,
        "hello_expected": 1008,
        "unknown_model": 1008,
        "credit_overrun": 1008,
        "unauthorized": 1008,
        "forbidden": 1008,
        "message_too_big": 1009,
        "draining": 1012,
        "full": 1013,
        "store_unavailable": 1013,
        "fenced": 4001,
        "idle_timeout": 4002,
        "slow_reader": 4003,
        "cannot_resume": 4004,
    }

    @classmethod
    def http_status(cls, error: EchoError) -> int:
        """The HTTP status of an error; 500 for one that is our fault."""
        return cls.HTTP.get(error.code, 500)

    @classmethod
    def close_code(cls, error: EchoError) -> int:
        """The websocket close code of an error; 1011 for one that is our fault."""
        return cls.CLOSE.get(error.code, 1011)


def known_codes() -> set[str]:
    """The codes of all errors that this program has loaded."""
    kinds = [EchoError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return {kind.code for kind in kinds[1:]}
