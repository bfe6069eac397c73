"""What a server says of whole clips: jobs, results, refusals; the same for both kinds of client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gdkvm_client.errors import (
    BadAnswerError,
    ConnectionLostError,
    GdkvmError,
    InputError,
    error_of,
)
from gdkvm_client.messages import (
    EjectionFraction,
    Model,
    Quality,
    Ventricle,
    build,
    parse_ejection_fraction,
)

DONE, FAILED = "done", "failed"

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 60.0
MAKING_TIMEOUT_S = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """What was measured in one frame.

    Attributes:
        time_ms: from the first frame, None where the frame rate is unknown.
        lv: None where no ventricle was measured; ``quality`` says why.
    """

    seq: int
    time_ms: float | None
    lv: Ventricle | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class ClipBeat:
    """One beat of a clip."""

    ed_seq: int
    es_seq: int
    ef_percent: float


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What was found in a clip.

    Attributes:
        document: all of it, as the server wrote it.
    """

    ef: EjectionFraction
    beats: tuple[ClipBeat, ...]
    frames: tuple[ClipFrame, ...]
    model: Model
    document: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "ClipResult":
        """Read the document of ``/v1/clips/{id}/result``.

        Raises:
            BadAnswerError: it is of another shape.
        """
        try:
            return cls(
                parse_ejection_fraction(document["ef"]),
                tuple(build(ClipBeat, beat) for beat in document["beats"]),
                tuple(_parse_frame(frame) for frame in document["frames"]),
                build(Model, document["model"]),
                document,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(f"not the result of a clip: {error!r}") from error


def _parse_frame(values: Mapping[str, Any]) -> ClipFrame:
    lv = values["lv"] and build(Ventricle, values["lv"])
    return ClipFrame(values["seq"], values["time_ms"], lv, build(Quality, values["quality"]))


@dataclass(frozen=True, slots=True)
class Job:
    """An uploaded clip on its way.

    Attributes:
        state: "received", "queued", "running", "done" or "failed".
        progress: share done, 0 to 1, None where unknown.
        error: why it failed, None unless it did.
    """

    id: str
    state: str
    progress: float | None = None
    error: GdkvmError | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in (DONE, FAILED)


def http_options(url: str, key: str | None) -> dict[str, Any]:
    """How to make an HTTP client of a server."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return {"base_url": url, "headers": headers, "timeout": timeout}


def upload_options(view: str | None, wait_s: float) -> dict[str, Any]:
    """How to send a file, all but the file."""
    query: dict[str, str | float] = {"wait_s": wait_s}
    if view is not None:
        query["view"] = view
    return {
        "params": query,
        "headers": {"Content-Type": "application/octet-stream"},
        "timeout": ANSWER_TIMEOUT_S + wait_s,
    }


def pauses_s() -> Iterator[float]:
    """How long to wait between looks at a job, for ever."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@contextmanager
def address_errors(url: str) -> Iterator[None]:
    """Turn what the HTTP library says of an address into our error."""
    try:
        yield
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError("bad_request", f"not an address of a server: {url}") from error


@contextmanager
def transport_errors() -> Iterator[None]:
    """Turn what the HTTP library says of a connection into our errors."""
    try:
        yield
    except httpx.UnsupportedProtocol as error:
        raise InputError("bad_request", f"not an address of a server: {error}") from error
    except httpx.TransportError as error:
        raise ConnectionLostError(f"the server cannot be reached: {error}") from error


def raise_refusal(answer: httpx.Response) -> None:
    """Turn a problem document (RFC 9457) into the error that it tells of."""
    if answer.is_success:
        return
    is_retryable = answer.status_code in (408, 429, 503, 507)
    try:
        document = answer.json()
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "bad_answer", f"the server answered with status {answer.status_code}"
    raise error_of(code, detail, is_retryable)


def parse_job(answer: httpx.Response) -> Job:
    """Read the state of a clip.

    Raises:
        BadAnswerError: it is of another shape.
    """
    document = _object(answer)
    try:
        told = document["error"]
        error = None if told is None else error_of(told["code"], told["message"], False)
        return Job(document["id"], document["state"], document["progress"], error)
    except (KeyError, TypeError) as error:
        raise BadAnswerError(f"not the state of a clip: {error!r}") from error


def parse_clip_result(answer: httpx.Response) -> ClipResult:
    """Read the result of a clip.

    Raises:
        BadAnswerError: it is of another shape.
    """
    return ClipResult.of(_object(answer))


def clip_id(answer: httpx.Response) -> str:
    """The clip that an upload became."""
    return str(answer.headers.get("Location", "")).rpartition("/")[2]


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise BadAnswerError("the server did not answer with JSON") from error
    if not isinstance(document, dict):
        raise BadAnswerError("the server did not answer with an object")
    return document
