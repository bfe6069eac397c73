"""A film (MP4, MOV, AVI, GIF) into a clip, frame by frame from a decoder process."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model import Calibration, Frame, choose_sector, film_probes, find_fan, rescale, square_size
from model.pictures import COLOURED_SHARE, coloured_share, expand_range
from server.ingest.clip import Clip, IngestLimits, Notes, TimeBase
from server.ingest.errors import (
    DecodeFailedError,
    MalformedHeaderError,
    NoPixelsError,
    TooLargeError,
    TooManyFramesError,
    TruncatedError,
)
from server.ingest.layout import check_size
from server.ingest.region import tissue
from server.ingest.sandbox import DecoderProcess, open_film
from server.ingest.timing import is_plausible_period

CONTAINER = "Container"
"""The time base of a film: its container's time stamps."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a DICOM header tells of the film in it.

    Attributes:
        size: rows and columns as they are stored.
        pixel_width: width of a pixel over its height, None where only the film tells it.
        calibrate: says where the tissue is, from what the film shows at first, as it is stored.
    """

    size: tuple[int, int]
    pixel_width: float | None
    calibrate: Callable[[Sequence[NDArray[np.uint8]]], Calibration]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a film says of itself.

    Attributes:
        size: rows and columns as they are stored, upright.
        shown_size: the same where every pixel is a square, as players show it.
        claimed_frames: how many frames its container claims, None where it does not.
        fps: the mean rate, None where unknown.
        duration_ms: as the container says, None where it does not.
    """

    codec: str
    size: tuple[int, int]
    shown_size: tuple[int, int]
    claimed_frames: int | None
    fps: float | None
    duration_ms: float | None

    @property
    def is_timed(self) -> bool:
        """Whether the time stamps can be a scanner's."""
        return self.fps is not None and self.fps > 0 and is_plausible_period(1000 / self.fps)


@contextmanager
def open_film_clip(
    file: BinaryIO,
    demuxer: str,
    limits: IngestLimits,
    *,
    told: Told | None = None,
    is_stamped: bool = True,
) -> Iterator[Clip]:
    """Open a film.

    Args:
        file: an open file with a descriptor.
        demuxer: FFmpeg's name of its container format.
        limits: bounds.
        told: by the header that it lies behind, if there is one; its word stands.
        is_stamped: whether the container knows the frames' times.

    Raises:
        IngestError: whatever is wrong with it.
    """
    with open_film(file, demuxer, limits) as process:
        facts = _receive_facts(process)
        if not is_stamped:
            facts = replace(facts, fps=None, duration_ms=None)
        size = facts.shown_size if told is None else _size_told(facts, told)
        check_size(*size, limits)
        if facts.claimed_frames is not None and facts.claimed_frames > limits.frames:
            raise _too_many(facts.claimed_frames, limits)
        notes = Notes()
        if size != facts.size:
            notes.warn("pixels_made_square")
        elif facts.shown_size != facts.size:
            notes.warn("pixels_not_square")
        if facts.fps is not None and not facts.is_timed and facts.claimed_frames != 1:
            notes.warn("time_base_implausible")
        pictures = _Reader(process, facts, size, limits, notes).pictures()
        first = list(islice(pictures, film_probes(*size)))
        lumas = [frame.pixels_HW for frame in first]
        calibration = Calibration()
        if told is not None:
            calibration = told.calibrate([rescale(luma, facts.size) for luma in lumas])
        one = choose_sector(lumas)
        region = (calibration.region and calibration.region.scaled(facts.size, size)) or one
        sector = find_fan(lumas, region)
        inside_HW = tissue(sector, region, size, facts.size)
        notes.colour_overlay = calibration.shows_flow
        for warning in calibration.warnings:
            notes.warn(warning)
        frames = _watched(chain(first, pictures), inside_HW, notes)
        yield Clip(
            frames=frames,
            frame_count=facts.claimed_frames,
            size=size,
            spacing_mm=calibration.spacing_mm,
            region=region,
            sector=sector,
            is_one_of_several=one is not None,
            time_base=_time_base(facts),
            view=None,
            encoding=f"{_CONTAINERS.get(demuxer, demuxer)}, {facts.codec}",
            notes=notes,
        )
        frames.close()


def _watched(
    pictures: Iterator[Frame], inside_HW: NDArray[np.bool_] | None, notes: Notes
) -> Generator[Frame, None, None]:
    """Give the frames, and note a colour overlay; only some come with their colours."""
    for frame in pictures:
        if frame.colours_HW3 is not None and not notes.colour_overlay:
            share = coloured_share(frame.colours_HW3, inside_HW)
            notes.colour_overlay = share > COLOURED_SHARE
        yield frame


_CONTAINERS = {"mov": "MP4 or MOV", "avi": "AVI", "gif": "GIF"}


def _receive_facts(process: DecoderProcess) -> _Facts:
    answer = process.receive()
    if answer is None:
        raise NoPixelsError("the film holds no picture")
    told = answer[0]
    rows, columns = map(int, told["size"])
    shown = square_size((rows, columns), told["pixel_width"])
    is_turned = told["turns"] % 2 == 1
    return _Facts(
        codec=str(told["codec"])[:16],
        size=(columns, rows) if is_turned else (rows, columns),
        shown_size=shown[::-1] if is_turned else shown,
        claimed_frames=told["frames"],
        fps=told["fps"],
        duration_ms=told["duration_ms"],
    )


def _size_told(facts: _Facts, told: Told) -> tuple[int, int]:
    """Rows and columns of square pixels, as the header has it where it has it.

    Raises:
        MalformedHeaderError: it is the header of another film.
    """
    if facts.size != told.size:
        raise MalformedHeaderError(
            f"the header says {told.size[0]} rows and {told.size[1]} columns, "
            f"the film has {facts.size[0]} and {facts.size[1]}"
        )
    if told.pixel_width is None:
        return facts.shown_size
    return square_size(facts.size, told.pixel_width)


def _time_base(facts: _Facts) -> TimeBase:
    if not facts.is_timed or facts.claimed_frames == 1:
        return TimeBase(None, None)
    return TimeBase(CONTAINER, facts.duration_ms)


def _too_many(frames: int, limits: IngestLimits) -> TooManyFramesError:
    return TooManyFramesError(
        f"the film has {frames} frames or more, at most {limits.frames} are read: "
        "send a shorter one"
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Receives a film's frames from its decoder process."""

    process: DecoderProcess
    facts: _Facts
    size: tuple[int, int]
    limits: IngestLimits
    notes: Notes

    def pictures(self) -> Iterator[Frame]:
        """Receive frames until the film ends."""
        clock = _Clock(self.facts.is_timed)
        count = hidden = 0
        while (answer := self.process.receive()) is not None:
            told, planes = answer
            if told.get("is_cut"):
                self.notes.warn("truncated_frames")
                break
            if "hidden" in told:
                hidden = told["hidden"]
                continue
            self._check_count(count + 1)
            luma, colours = self._luma(planes, told), _colours(planes, told)
            yield Frame(count, clock.read(told["time_us"]), luma, colours)
            count += 1
        if count == 0:
            raise TruncatedError("the film ends before its first whole picture")
        claimed = self.facts.claimed_frames
        if claimed is not None and count + hidden < claimed:
            self.notes.warn("truncated_frames")

    def _check_count(self, count: int) -> None:
        """Stop at the limits: what a container claims binds nobody."""
        if count > self.limits.frames:
            raise _too_many(count, self.limits)
        rows, columns = self.size
        if 3 * count * rows * columns > self.limits.decoded_bytes:
            raise TooLargeError(
                f"the film decodes to more than {self.limits.decoded_bytes} bytes: "
                "send a shorter one"
            )

    def _luma(self, planes: list[NDArray[Any]], told: dict[str, Any]) -> NDArray[np.uint8]:
        luma = np.rot90(planes[0][:, : told["columns"]], told["turns"])
        if luma.shape != self.facts.size:
            raise DecodeFailedError("the film's pictures change their size")
        luma = np.ascontiguousarray(luma)
        if not told["is_full_range"]:
            luma = expand_range(luma)
        return rescale(luma, self.size)


def _colours(planes: list[NDArray[Any]], told: dict[str, Any]) -> NDArray[np.uint8] | None:
    """The colours of a frame, as it is stored and upright, where they come with it."""
    if len(planes) == 1:
        return None
    rgb = planes[1][:, : 3 * told["columns"]].reshape(len(planes[1]), -1, 3)
    return np.rot90(rgb, told["turns"])


class _Clock:
    """Counts time stamps from the first frame; a stamp that does not rise is no time."""

    def __init__(self, is_timed: bool) -> None:
        self._is_timed = is_timed
        self._first_us: int | None = None
        self._last_us = -1

    def read(self, time_us: int | None) -> int | None:
        """Turn a time stamp into the time since the first frame, None where unknown."""
        if not self._is_timed or time_us is None:
            return None
        if self._first_us is None:
            self._first_us = time_us
        since_us = time_us - self._first_us
        if since_us <= self._last_us:
            return None
        self._last_us = since_us
        return since_us
