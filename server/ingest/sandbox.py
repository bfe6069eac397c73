"""The parent's side of a decoder process."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from server.ingest.clip import IngestLimits
from server.ingest.codestream import Stream
from server.ingest.errors import (
    DecodeFailedError,
    IngestError,
    NoPixelsError,
    TooLargeError,
    TooSlowError,
)

_SCRIPT = Path(__file__).with_name("decoder_process.py")
_MAX_LINE_BYTES = 4096
_DTYPES = ("|u1", "|i1", "<u2", "<i2")
_CLOSE_S = 5.0


class DecoderProcess:
    """A running decoder process; see `open_images` and `open_film`."""

    def __init__(self, process: "subprocess.Popen[bytes]", max_plane_bytes: int) -> None:
        """Take over a started process.

        Args:
            process: the process, its standard output a pipe.
            max_plane_bytes: the largest plane that it may send.
        """
        self._process = process
        self._max_plane_bytes = max_plane_bytes

    def decode(self, stream: Stream) -> NDArray[Any]:
        """Decode one compressed frame to its samples.

        Raises:
            DecodeFailedError: the decoder cannot read it, or died of it.
            TooSlowError: the process has used up its computing time.
        """
        wanted = {
            "coding": stream.coding.value,
            "bytes": len(stream.payload),
            "rows": stream.rows,
            "columns": stream.columns,
            "samples": stream.samples,
            "bits": stream.bits,
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n" + stream.payload)
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error
        answer = self.receive()
        if answer is None:
            raise self._death()
        planes = answer[1]
        shape = (stream.rows, stream.columns, *((stream.samples,) if stream.samples > 1 else ()))
        if len(planes) != 1 or planes[0].shape != shape:
            raise DecodeFailedError("a decoded frame is not of the size that it claimed")
        return planes[0]

    def receive(self) -> tuple[dict[str, Any], list[NDArray[Any]]] | None:
        """Wait for one answer: facts and planes; None once there are no more.

        Raises:
            IngestError: what the process reports, or how it died.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_MAX_LINE_BYTES)
        if not line:
            if self._process.wait(_CLOSE_S) != 0:
                raise self._death()
            return None
        facts = json.loads(line)
        if "error" in facts:
            raise _refusal(facts["error"])
        return facts, [self._plane(dtype, tuple(shape)) for dtype, shape in facts["planes"]]

    def _plane(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        assert self._process.stdout is not None
        length = int(np.prod(shape)) * int(dtype[-1])
        if dtype not in _DTYPES or not 0 < length <= self._max_plane_bytes:
            raise DecodeFailedError("a decoded frame is of an impossible size")
        raw = self._process.stdout.read(length)
        if len(raw) < length:
            raise self._death()
        return np.frombuffer(raw, dtype).reshape(shape)

    def _death(self) -> IngestError:
        """Say how the process ended."""
        code = self._process.wait(_CLOSE_S)
        if code == -signal.SIGXCPU:
            return TooSlowError("decoding this clip takes too long: send a shorter or simpler one")
        return DecodeFailedError("the pictures inside cannot be decoded: they broke the decoder")


def _refusal(reason: str) -> IngestError:
    if reason == "no_pixels":
        return NoPixelsError("the film holds no picture")
    if reason == "too_large":
        return TooLargeError("the film's pictures are larger than allowed: send a smaller one")
    if reason == "MemoryError":
        return TooLargeError("decoding takes more memory than allowed: send a smaller clip")
    return DecodeFailedError(f"the pictures inside cannot be decoded ({reason})")


@contextmanager
def open_images(limits: IngestLimits) -> Iterator[DecoderProcess]:
    """Start a process that decodes frames on request."""
    job = _bounds(limits) | {"kind": "images"}
    with _start(job, subprocess.PIPE, limits) as process:
        yield process


@contextmanager
def open_film(file: BinaryIO, demuxer: str, limits: IngestLimits) -> Iterator[DecoderProcess]:
    """Start a process that decodes a film; its first answer is the film's facts.

    Args:
        file: an open file with a descriptor; the process reads it and can open no other.
        demuxer: FFmpeg's name of the only container format to try.
        limits: bounds of the process.
    """
    file.seek(0)
    job = _bounds(limits) | {
        "kind": "film",
        "demuxer": demuxer,
        "max_pixels": limits.frame_pixels,
    }
    with _start(job, file.fileno(), limits) as process:
        yield process


def _bounds(limits: IngestLimits) -> dict[str, Any]:
    return {"memory_bytes": limits.decoder_bytes, "cpu_s": max(1, round(limits.decode_s))}


@contextmanager
def _start(job: dict[str, Any], stdin: int, limits: IngestLimits) -> Iterator[DecoderProcess]:
    """Run the script, and end it on every way out."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT), json.dumps(job)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield DecoderProcess(process, max_plane_bytes=6 * limits.frame_pixels)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close_quietly(pipe)


def _close_quietly(pipe: Any) -> None:
    try:
        pipe.close()
    except OSError:  # bytes for a dead process are still in the buffer
        return
