"""What can go wrong, as seen by a client.

GdkvmError                 code, message, retryable
  InputError               what was sent is not what the protocol or the route wants
  TooBigError              a message or a file above a limit of the server
  ClipRefusedError         a file that cannot become a clip
  UnauthorizedError        no key, an unknown one, or not from here
  NotFoundError            nothing of that name, or not of that kind
  NotFinishedError         the clip is still being worked on
  BusyError                full, going away or out of room: try later or elsewhere
  SessionLostError         a stream's session cannot go on, or an upload fell silent
  ServerFaultError         the server's own failure
  ConnectionLostError      no answer: network, address or a server that is not there
  BadAnswerError           an answer that is not of this protocol
"""

from typing import ClassVar


class GdkvmError(Exception):
    """Something went wrong.

    Attributes:
        code: stable and machine-readable; the server's own where it said one.
        message: a sentence that a person can act on.
        retryable: whether the same may work later.
    """

    codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, code: str, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


class InputError(GdkvmError):
    """What was sent is not what the protocol or the route wants."""

    codes = frozenset(
        {
            "another_study", "bad_edit", "bad_frame", "bad_measurement", "bad_request",
            "cannot_deidentify", "credit_overrun", "hello_expected", "malformed_message",
            "method_not_allowed", "not_acceptable", "stale_revision", "undecodable_frame",
            "unknown_message", "unknown_model", "unsupported_codec", "unsupported_media_type",
            "wrong_size",
        }
    )  # fmt: skip


class TooBigError(GdkvmError):
    """A message or a file above a limit of the server."""

    codes = frozenset({"message_too_big", "too_large", "too_many_frames", "too_slow"})


class ClipRefusedError(GdkvmError):
    """A file that cannot become a clip."""

    codes = frozenset(
        {
            "ambiguous_archive", "bad_clip", "decode_failed", "empty", "malformed_header",
            "no_pixels", "not_a_clip", "truncated", "unsafe_archive", "unsupported_modality",
            "unsupported_object", "unsupported_pixels", "unsupported_transfer_syntax",
        }
    )  # fmt: skip


class UnauthorizedError(GdkvmError):
    """No key, an unknown one, or a request from where none is allowed."""

    codes = frozenset({"forbidden", "foreign_page", "unauthorized"})


class NotFoundError(GdkvmError):
    """Nothing of that name, or not of that kind."""

    codes = frozenset({"not_available", "not_found"})


class NotFinishedError(GdkvmError):
    """The clip is still being worked on."""

    codes = frozenset({"not_finished"})


class BusyError(GdkvmError):
    """Full, going away or out of room: try later or elsewhere."""

    codes = frozenset({"draining", "full", "overtaken", "storage_full", "store_unavailable"})


class SessionLostError(GdkvmError):
    """A stream's session cannot go on, or an upload fell silent."""

    codes = frozenset({"cannot_resume", "fenced", "idle_timeout", "slow_reader"})


class ServerFaultError(GdkvmError):
    """The server's own failure; also what a code unknown to this version becomes."""

    codes = frozenset({"bad_state", "bad_weights", "engine_dead", "engine_failed"})


class ConnectionLostError(GdkvmError):
    """No answer: network, address or a server that is not there."""

    codes = frozenset({"connection_lost"})

    def __init__(self, message: str) -> None:
        super().__init__("connection_lost", message, retryable=True)


class BadAnswerError(GdkvmError):
    """An answer that is not of this protocol."""

    codes = frozenset({"bad_answer"})

    def __init__(self, message: str) -> None:
        super().__init__("bad_answer", message)


_CLASSES: tuple[type[GdkvmError], ...] = (
    InputError,
    TooBigError,
    ClipRefusedError,
    UnauthorizedError,
    NotFoundError,
    NotFinishedError,
    BusyError,
    SessionLostError,
    ServerFaultError,
)


def error_of(code: str, message: str, retryable: bool = False) -> GdkvmError:
    """Make the error that stands for a code of the server."""
    kind = next((kind for kind in _CLASSES if code in kind.codes), ServerFaultError)
    return kind(code, message, retryable)
