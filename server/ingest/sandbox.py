"""The parent's side of a decoder process."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.pictures import LIBRARIES, Stream, in_rows
from server.ingest.clip import IngestLimits
from server.ingest.errors import (
    DecodeFailedError,
    IngestError,
    NoPixelsError,
    TooLargeError,
    TooSlowError,
)

_SCRIPT = Path(__file__).with_name("decoder_process.py")
_MAX_LINE_BYTES = 4096
_SAMPLE_BYTES = {"|u1": 1, "|i1": 1, "<u2": 2, "<i2": 2}
_GIF_TAIL_BYTES = 64

Answer: TypeAlias = tuple[dict[str, Any], list[NDArray[Any]]]
"""Facts and planes."""


class DecoderProcess:
    """A running decoder process; see `open_images` and `open_film`."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", max_plane_bytes: int, patience_s: float
    ) -> None:
        """Take over a started process.

        Args:
            process: the process, its standard output a pipe.
            max_plane_bytes: the largest plane that it may send.
            patience_s: the longest wait for one answer, after which the process is killed.
        """
        self._process = process
        self._max_plane_bytes = max_plane_bytes
        self._patience_s = patience_s
        self._is_late = False

    def decode(self, stream: Stream) -> NDArray[Any]:
        """Decode one compressed frame to its samples.

        Raises:
            DecodeFailedError: the decoder cannot read it, or died of it.
            TooSlowError: the process has used up its time.
        """
        wanted = stream.wanted | {"bytes": len(stream.payload)}
        with self._patience():
            self._ask(json.dumps(wanted).encode() + b"\n" + stream.payload)
            answer = self._receive()
        planes = [] if answer is None else answer[1]
        if len(planes) != 1:
            raise DecodeFailedError("a decoded frame is not of the size that it claimed")
        return in_rows(planes[0], stream)

    def receive(self) -> Answer | None:
        """Wait for one answer: facts and planes; None once there are no more.

        Raises:
            IngestError: what the process reports, or how it died.
        """
        with self._patience():
            return self._receive()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Kill the process where an answer takes too long; waiting for it then ends at once."""
        timer = threading.Timer(self._patience_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()

    def _ask(self, request: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def _receive(self) -> Answer | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_MAX_LINE_BYTES)
        if not line:
            if self._process.wait() != 0:
                raise self._death()
            return None
        try:
            facts = json.loads(line)
            described = [(str(dtype), tuple(map(int, shape))) for dtype, shape in facts["planes"]]
        except (ValueError, TypeError, KeyError) as error:
            raise self._death() from error
        if "error" in facts:
            raise _refusal(facts["error"])
        return facts, [self._plane(dtype, shape) for dtype, shape in described]

    def _plane(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        assert self._process.stdout is not None
        length = math.prod(shape) * _SAMPLE_BYTES.get(dtype, 0)
        if not 0 < length <= self._max_plane_bytes:
            raise DecodeFailedError("a decoded frame is of an impossible size")
        raw = self._process.stdout.read(length)
        if len(raw) < length:
            raise self._death()
        return np.frombuffer(raw, dtype).reshape(shape)

    def _death(self) -> IngestError:
        """End the process and say what became of it."""
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        if self._is_late or code == -signal.SIGXCPU:
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
    job = _bounds(limits) | {"kind": "images", "libraries": LIBRARIES}
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
    job = _bounds(limits) | {
        "kind": "film",
        "demuxer": demuxer,
        "max_pixels": limits.frame_pixels,
        "drops_last": demuxer == "gif" and _lacks_trailer(file),
    }
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # Python's own seek may stay inside its buffer
    with _start(job, file.fileno(), limits) as process:
        yield process


def _lacks_trailer(file: BinaryIO) -> bool:
    """Whether a GIF is cut; FFmpeg would give its last frame half decoded."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _GIF_TAIL_BYTES))
    return b";" not in file.read().rstrip(b"\0")[-1:]


def _bounds(limits: IngestLimits) -> dict[str, Any]:
    return {"memory_bytes": limits.decoder_bytes, "cpu_s": max(1, round(limits.decode_s))}


@contextmanager
def _start(job: dict[str, Any], stdin: int, limits: IngestLimits) -> Iterator[DecoderProcess]:
    """Run the script, and end it on every way out."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT), json.dumps(job)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # numpy starts faster without its threads
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield DecoderProcess(process, 6 * limits.frame_pixels, limits.decode_s)
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
