"""Whole clips: upload a file, wait for its job, fetch the results."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from gdkvm_client.results import (
    MAKING_TIMEOUT_S,
    ClipResult,
    Job,
    address_errors,
    clip_id,
    http_options,
    parse_clip_result,
    parse_job,
    pauses_s,
    raise_refusal,
    transport_errors,
    upload_options,
)


class Clips:
    """A server's clips over HTTP; use it as a context."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name the server.

        Args:
            url: its address, such as ``http://127.0.0.1:8000``.
            key: API key, None where the server wants none.
        """
        with address_errors(url):
            self._http = httpx.Client(**http_options(url, key))

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
        return parse_job(self._post(path, view, wait_s=0.0))

    def analyse(self, path: Path, *, view: str | None = None, wait_s: float = 30.0) -> ClipResult:
        """Send a file and wait for its result, which the server then forgets.

        Raises:
            GdkvmError: the server cannot be reached, refuses, or could not read the clip.
        """
        answer = self._post(path, view, wait_s)
        identifier = clip_id(answer)
        try:
            if answer.status_code == httpx.codes.OK:
                return parse_clip_result(answer)
            self.wait(parse_job(answer))
            return self.result(identifier)
        finally:
            self.delete(identifier)

    def _post(self, path: Path, view: str | None, wait_s: float) -> httpx.Response:
        with path.open("rb") as file:
            return self._ask("POST", "/v1/clips", content=file, **upload_options(view, wait_s))

    def job(self, identifier: str) -> Job:
        """State and progress of a clip.

        Raises:
            GdkvmError: no such clip, or no server.
        """
        return parse_job(self._ask("GET", f"/v1/clips/{identifier}"))

    def wait(self, job: Job, *, timeout_s: float | None = None) -> Job:
        """Wait until a clip is done.

        Raises:
            GdkvmError: why it failed.
            TimeoutError: it is not done in time.
        """
        started_s, pauses = time.monotonic(), pauses_s()
        while not job.has_ended:
            if timeout_s is not None and time.monotonic() - started_s > timeout_s:
                raise TimeoutError(f"clip {job.id} is {job.state} after {timeout_s:g} s")
            time.sleep(next(pauses))
            job = self.job(job.id)
        if job.error is not None:
            raise job.error
        return job

    def result(self, identifier: str) -> ClipResult:
        """What was found in a clip.

        Raises:
            GdkvmError: it is not done, failed, or is not there.
        """
        return parse_clip_result(self._ask("GET", f"/v1/clips/{identifier}/result"))

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
        url = f"/v1/clips/{identifier}/{name}"
        try:
            with (
                transport_errors(),
                self._http.stream("GET", url, timeout=MAKING_TIMEOUT_S) as answer,
                part.open("wb") as file,
            ):
                if answer.is_error:
                    answer.read()
                raise_refusal(answer)
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
        with transport_errors():
            answer = self._http.request(method, url, **options)
        raise_refusal(answer)
        return answer
