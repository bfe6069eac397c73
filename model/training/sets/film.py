"""Films as the server shows them: luma of every frame, in full range and upright."""

from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.preprocess import rescale, square_size
from model.sector import film_probes


def read_film(path: Path) -> list[NDArray[np.uint8]]:
    """Luma of every frame, each pixel a square, as the server shows films.

    Raises:
        FrameError: a film that cannot be decoded, or one that breaks off.
    """
    frames, shown = read_stored(path)
    return [rescale(frame, shown) for frame in frames]


def read_stored(
    path: Path, stream: BinaryIO | None = None, container: str | None = None
) -> tuple[list[NDArray[np.uint8]], tuple[int, int]]:
    """Luma of every frame as it is stored, upright, and its size once every pixel is a square.

    Args:
        path: of the film, to name it by.
        stream: what to read in its place, where the film lies inside the file.
        container: FFmpeg's name of its form, found out where None.

    Raises:
        FrameError: a film that cannot be decoded, or one that breaks off.
    """
    frames: list[NDArray[np.uint8]] = []
    shown = (0, 0)
    try:
        with av.open(stream or path, "r", format=container) as film:
            ratio = film.streams.video[0].sample_aspect_ratio
            for packet in film.demux(video=0):
                _check_whole(packet, path, len(frames))
                for frame in packet.decode():
                    _check_whole(frame, path, len(frames))
                    frames.append(_luma(frame))
                    shown = _shown(frame, float(ratio or 1))
    except (av.FFmpegError, IndexError) as error:
        raise FrameError(f"{path} cannot be decoded: {error}") from error
    if not frames:
        raise FrameError(f"{path} holds no frame")
    if len({frame.shape for frame in frames}) > 1:
        raise FrameError(f"{path} holds pictures of several sizes")
    return frames, shown


def _check_whole(part: Any, path: Path, frames: int) -> None:
    if part.is_corrupt:
        raise FrameError(f"{path} cannot be decoded: it is cut off or damaged at frame {frames}")


def _luma(frame: Any) -> NDArray[np.uint8]:
    """FFmpeg stretches the video range 16..235 by itself; what turns a film it leaves to us."""
    luma = np.asarray(frame.to_ndarray(format="gray8"), np.uint8)
    return np.ascontiguousarray(np.rot90(luma, _turns(frame)))


def _shown(frame: Any, pixel_width: float) -> tuple[int, int]:
    size = square_size((frame.height, frame.width), pixel_width)
    return size[::-1] if _turns(frame) % 2 else size


def _turns(frame: Any) -> int:
    """Quarter turns to the left that set a frame upright."""
    return round(frame.rotation / 90) % 4


def probes_of_film(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The frames in which the server looks for a film's fan."""
    return frames[: film_probes(*frames[0].shape)]
