"""Video inside DICOM: MPEG-2, H.264 or HEVC as one stream over all fragments.

Source:
    DICOM PS3.5 sections 8.2.5 to 8.2.8 (video in encapsulated pixel data).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from model import Frame
from model.pictures import container_of, walk_fragments
from server.ingest.clip import Clip, IngestLimits
from server.ingest.dataset import DataSet
from server.ingest.elements import Element
from server.ingest.film import Told, open_film_clip
from server.ingest.layout import check_count, check_size, declared_frames, required
from server.ingest.region import calibrate, pixel_width, view_of
from server.ingest.tags import Tag
from server.ingest.timing import (
    UNKNOWN,
    FrameTimes,
    frame_times,
    heart_rate_bpm,
    r_wave_times_ms,
)

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 512


@contextmanager
def open_dicom_film(data_set: DataSet, pixels: Element, limits: IngestLimits) -> Iterator[Clip]:
    """Open a clip that is stored as video.

    Raises:
        IngestError: whatever is wrong with it.
    """
    rows, columns = required(data_set.header, Tag.Rows), required(data_set.header, Tag.Columns)
    check_size(rows, columns, limits)
    # Every frame that is declared gets a time before the first one is decoded.
    check_count(declared_frames(data_set.header) or 1, limits)
    look = partial(calibrate, data_set.header, rows, columns)
    told = Told((rows, columns), pixel_width(data_set.header, look()), look)
    with tempfile.TemporaryFile() as stream:
        is_cut = _join_fragments(data_set, pixels, stream)
        stream.seek(0)
        demuxer = container_of(stream.read(_HEAD_BYTES), data_set.syntax.demuxer)
        is_stamped = demuxer != data_set.syntax.demuxer  # a bare stream's stamps are made up
        with open_film_clip(stream, demuxer, limits, told=told, is_stamped=is_stamped) as film:
            if is_cut:
                film.notes.warn("truncated_frames")
            yield _with_header(film, data_set)


def _join_fragments(data_set: DataSet, pixels: Element, stream: BinaryIO) -> bool:
    """Write all fragments one after the other; returns whether the last one is cut."""
    found = walk_fragments(pixels.offset, data_set.window)
    for offset, length in (*found.whole, *([found.rest] if found.rest else [])):
        for start in range(offset, offset + length, _CHUNK_BYTES):
            wanted = min(_CHUNK_BYTES, offset + length - start)
            stream.write(data_set.window.read_at(start, wanted))
    stream.flush()
    return found.is_cut


def _with_header(film: Clip, data_set: DataSet) -> Clip:
    """Say of a film what its DICOM header knows; the header's times go before the container's."""
    header = data_set.header
    declared = declared_frames(header)
    count = declared or film.frame_count
    times = UNKNOWN if count is None else frame_times(header, count, count)
    for warning in times.warnings:
        film.notes.warn(warning)
    return replace(
        film,
        frames=_timed(film, times, declared),
        frame_count=count,
        time_base=times.base if times.starts_us else film.time_base,
        view=view_of(header),
        encoding=f"DICOM, {data_set.syntax.name}",
        heart_rate_bpm=heart_rate_bpm(header),
        r_wave_times_ms=r_wave_times_ms(header),
    )


def _timed(film: Clip, times: FrameTimes, declared: int | None) -> Iterator[Frame]:
    """Give frames the header's times, and no more of them than it declares."""
    count = 0
    for frame in film.frames:
        if declared is not None and count == declared:
            film.notes.warn("extra_pixel_data")
            break
        yield replace(frame, time_us=times.of(count)) if times.starts_us else frame
        count += 1
    if declared is not None and count < declared:
        film.notes.warn("truncated_frames")
