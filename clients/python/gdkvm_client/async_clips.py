"""Whole clips for programs with an event loop; files are read and written in threads."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

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

_CHUNK_BYTES = 1 << 20


class AsyncClips:
    """A server's clips over HTTP, as ``Clips`` without waiting in the event loop."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """Name the server.

        Args:
            url: its address, such as ``http://127.0.0.1:8000``.
            key: API key, None where the server wants none.
        """
        with address_errors(url):
            self._http = httpx.AsyncClient(**http_options(url, key))

    async def __aenter__(self) -> Self:
        """Keep connections open between calls."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def upload(self, path: Path, *, view: str | None = None) -> Job:
        """Send a file; the server begins to work on it.

        Args:
            path: DICOM, zip of DICOM, MP4, MOV, AVI or GIF.
            view: "A4C" or "A2C" where the file does not say.

        Raises:
            GdkvmError: the server cannot be reached, or refuses.
        """
        return parse_job(await self._post(path, view, wait_s=0.0))

    async def analyse(
        self, path: Path, *, view: str | None = None, wait_s: float = 30.0
    ) -> ClipResult:
        """Send a file and wait for its result, which the server then forgets.

        Raises:
            GdkvmError: the server cannot be reached, refuses, or could not read the clip.
        """
        answer = await self._post(path, view, wait_s)
        identifier = clip_id(answer)
        try:
            if answer.status_code == httpx.codes.OK:
                return parse_clip_result(answer)
            await self.wait(parse_job(answer))
            return await self.result(identifier)
        finally:
            await self.delete(identifier)

    async def _post(self, path: Path, view: str | None, wait_s: float) -> httpx.Response:
        options = upload_options(view, wait_s)
        file = await asyncio.to_thread(path.open, "rb")
        try:
            # Told beforehand, so that a server refuses a file that is too long unread.
            options["headers"]["Content-Length"] = str(os.fstat(file.fileno()).st_size)
            return await self._ask("POST", "/v1/clips", content=_chunks(file), **options)
        finally:
            file.close()

    async def job(self, identifier: str) -> Job:
        """State and progress of a clip.

        Raises:
            GdkvmError: no such clip, or no server.
        """
        return parse_job(await self._ask("GET", f"/v1/clips/{identifier}"))

    async def wait(self, job: Job) -> Job:
        """Wait until a clip is done, for as long as ``asyncio.timeout`` around it allows.

        Raises:
            GdkvmError: why it failed.
        """
        pauses = pauses_s()
        while not job.has_ended:
            await asyncio.sleep(next(pauses))
            job = await self.job(job.id)
        if job.error is not None:
            raise job.error
        return job

    async def result(self, identifier: str) -> ClipResult:
        """What was found in a clip.

        Raises:
            GdkvmError: it is not done, failed, or is not there.
        """
        return parse_clip_result(await self._ask("GET", f"/v1/clips/{identifier}/result"))

    async def download(self, identifier: str, name: str, path: Path) -> None:
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
        file = await asyncio.to_thread(part.open, "wb")
        try:
            with transport_errors():
                async with self._http.stream("GET", url, timeout=MAKING_TIMEOUT_S) as answer:
                    if answer.is_error:
                        await answer.aread()
                    raise_refusal(answer)
                    async for chunk in answer.aiter_bytes():
                        await asyncio.to_thread(file.write, chunk)
            file.close()
            part.replace(path)
        finally:
            file.close()
            part.unlink(missing_ok=True)

    async def delete(self, identifier: str) -> None:
        """Make the server forget a clip.

        Raises:
            GdkvmError: it is not there.
        """
        await self._ask("DELETE", f"/v1/clips/{identifier}")

    async def _ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        with transport_errors():
            answer = await self._http.request(method, url, **options)
        raise_refusal(answer)
        return answer


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        yield chunk
