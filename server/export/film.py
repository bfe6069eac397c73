"""An H.264 film written picture by picture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

TICKS_PER_S = 90_000
NOMINAL_FPS = 30
"""The pace of a clip whose frame rate is unknown."""

_OPTIONS = {"preset": "veryfast", "crf": "18", "profile": "high"}


class Film:
    """Takes pictures of one even size; each is encoded at once, so memory stays bounded."""

    def __init__(self, container: av.container.OutputContainer, width: int, height: int) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=NOMINAL_FPS, options=dict(_OPTIONS))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, TICKS_PER_S)
        # One thread: live sessions are served by the same processor.
        context.thread_count = 1
        # Else the last picture would be shown for one nominal period, whatever its own.
        context.flags |= Flags.frame_duration
        self._last_tick = -1

    def add(self, picture_HW3: NDArray[np.uint8], start_s: float, duration_s: float) -> None:
        """Append one RGB picture, shown from ``start_s`` for ``duration_s``."""
        frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24")
        frame.time_base = Fraction(1, TICKS_PER_S)
        # Frames less than a tick apart would fall on one, which no container takes.
        frame.pts = self._last_tick = max(round(start_s * TICKS_PER_S), self._last_tick + 1)
        frame.duration = max(1, round(duration_s * TICKS_PER_S))
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write out what the encoder still holds."""
        self._container.mux(self._stream.encode())


@contextmanager
def open_film(path: Path, width: int, height: int) -> Iterator[Film]:
    """Write an MP4 that a browser starts to play before it is wholly loaded.

    A film that is not finished leaves no file behind.

    Args:
        path: where to write.
        width: of every picture, even.
        height: likewise.
    """
    part = path.with_name(path.name + ".part")
    try:
        options = {"movflags": "+faststart"}
        with av.open(str(part), "w", format="mp4", options=options) as container:
            film = Film(container, width, height)
            yield film
            film.finish()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


MOST_S = (1 << 30) // TICKS_PER_S
"""From a film's first frame to its last, which is shown as long as the one before it: together they
may be 32-bit numbers. Times further apart are none."""


def starts_s(times_us: Sequence[int | None]) -> list[float] | None:
    """When each frame is shown, from 0; None where times are unknown, do not rise or leap away."""
    known = [time_us for time_us in times_us if time_us is not None]
    if len(known) < len(times_us) or any(b <= a for a, b in pairwise(known)):
        return None
    if known[-1] - known[0] >= 1_000_000 * MOST_S:
        return None
    return [(time_us - known[0]) / 1e6 for time_us in known]
