"""Whole clips: upload a file, wait for its job, fetch the results."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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

_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 10.0, 60.0
_MAKING_TIMEOUT_S = 600.0
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


class Clips:
    """A server's clips over HTTP; use it as a context."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name the server.

        Args:
            url: its address, such as ``http://127.0.0.1:8000``.
            key: API key, None where the server wants none.
        """
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        timeout = httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError("bad_request", f"not an address of a server: {url}") from error

    def __enter__(self) -> Self:
        """Keep connections open between calls."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, path: Path, *, view: str | None = None) -> Job:
        """Send a file; the server begins to work on it.

        Args:
            path: DICOM, zip of DICOM, MP4, MOV, AVI or GIF.
            view: "A4C" or "A2C" where the file does not say.

        Raises:
            GdkvmError: the server cannot be reached, or refuses.
        """
        answer = self._post(path, view, wait_s=0.0)
        return _parse_job(_object(answer))

    def analyse(self, path: Path, *, view: str | None = None, wait_s: float = 30.0) -> ClipResult:
        """Send a file and wait for its result, which the server then forgets.

        Raises:
            GdkvmError: the server cannot be reached, refuses, or could not read the clip.
        """
        answer = self._post(path, view, wait_s)
        identifier = answer.headers.get("Location", "").rpartition("/")[2]
        try:
            if answer.status_code == httpx.codes.OK:
                return ClipResult.of(_object(answer))
            self.wait(_parse_job(_object(answer)))
            return self.result(identifier)
        finally:
            self.delete(identifier)

    def _post(self, path: Path, view: str | None, wait_s: float) -> httpx.Response:
        query: dict[str, str | float] = {"wait_s": wait_s}
        if view is not None:
            query["view"] = view
        with path.open("rb") as file:
            return self._ask(
                "POST",
                "/v1/clips",
                params=query,
                content=file,
                headers={"Content-Type": "application/octet-stream"},
                timeout=_ANSWER_TIMEOUT_S + wait_s,
            )

    def job(self, identifier: str) -> Job:
        """State and progress of a clip.

        Raises:
            GdkvmError: no such clip, or no server.
        """
        return _parse_job(_object(self._ask("GET", f"/v1/clips/{identifier}")))

    def wait(self, job: Job, *, timeout_s: float | None = None) -> Job:
        """Wait until a clip is done.

        Raises:
            GdkvmError: why it failed.
            TimeoutError: it is not done in time.
        """
        started_s, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while job.state not in (DONE, FAILED):
            if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                raise TimeoutError(f"clip {job.id} is {job.state} after {timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            job = self.job(job.id)
        if job.error is not None:
            raise job.error
        return job

    def result(self, identifier: str) -> ClipResult:
        """What was found in a clip.

        Raises:
            GdkvmError: it is not done, failed, or is not there.
        """
        return ClipResult.of(_object(self._ask("GET", f"/v1/clips/{identifier}/result")))

    def download(self, identifier: str, name: str, path: Path) -> None:
        """Fetch a file made from a clip, whole or not at all.

        Args:
            identifier: of the clip.
            name: "overlay.mp4" or "masks.npz".
            path: where to write it.

        Raises:
            GdkvmError: it does not exist, or the connection broke.
        """
        part = path.with_name(path.name + ".part")
        try:
            with (
                self._connected(),
                self._http.stream(
                    "GET", f"/v1/clips/{identifier}/{name}", timeout=_MAKING_TIMEOUT_S
                ) as answer,
                part.open("wb") as file,
            ):
                if answer.is_error:
                    answer.read()
                _raise_refusal(answer)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, identifier: str) -> None:
        """Make the server forget a clip.

        Raises:
            GdkvmError: it is not there.
        """
        self._ask("DELETE", f"/v1/clips/{identifier}")

    def _ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        with self._connected():
            answer = self._http.request(method, url, **options)
        _raise_refusal(answer)
        return answer

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except httpx.UnsupportedProtocol as error:
            raise InputError("bad_request", f"not an address of a server: {error}") from error
        except httpx.TransportError as error:
            raise ConnectionLostError(f"the server cannot be reached: {error}") from error


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise BadAnswerError("the server did not answer with JSON") from error
    if not isinstance(document, dict):
        raise BadAnswerError("the server did not answer with an object")
    return document


def _raise_refusal(answer: httpx.Response) -> None:
    """Turn a problem document (RFC 9457) into the error that it tells of."""
    if answer.is_success:
        return
    is_retryable = answer.status_code in (429, 503, 507)
    try:
        document = answer.json()
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "bad_answer", f"the server answered with status {answer.status_code}"
    raise error_of(code, detail, is_retryable)


def _parse_job(document: Mapping[str, Any]) -> Job:
    try:
        told = document["error"]
        error = None if told is None else error_of(told["code"], told["message"], False)
        return Job(document["id"], document["state"], document["progress"], error)
    except (KeyError, TypeError) as error:
        raise BadAnswerError(f"not the state of a clip: {error!r}") from error
