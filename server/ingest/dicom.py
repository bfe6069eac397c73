"""A DICOM file into a clip: its header, then where the frames lie, then one by one to luma."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from model import Frame, fan_probes, find_fan
from model.pictures import (
    COLOURED_SHARE,
    Decoder,
    Layout,
    Storage,
    as_stored,
    choose_native,
    is_end_whole,
    swap_words,
)
from server.ingest.clip import Clip, IngestLimits, Notes
from server.ingest.dataset import DataSet, check_object, open_data_set
from server.ingest.decode import choose_bounded
from server.ingest.dicom_film import open_dicom_film
from server.ingest.elements import Element
from server.ingest.errors import IngestError, TruncatedError
from server.ingest.fragments import (
    Frames,
    frame_reader,
    is_encapsulated,
    locate_fragments,
    locate_native,
    single_stream,
)
from server.ingest.layout import check_frames, read_layout
from server.ingest.prefetch import decode_in_order
from server.ingest.region import calibrate, view_of
from server.ingest.timing import FrameTimes, frame_times, heart_rate_bpm, r_wave_times_ms
from server.ingest.window import Window

COLOUR_PROBE_EVERY = 8
"""Every how many frames one is looked at for colour; colour Doppler stays on for longer."""


@contextmanager
def open_dicom(file: BinaryIO, limits: IngestLimits) -> Iterator[Clip]:
    """Open a DICOM file.

    Raises:
        IngestError: whatever is wrong with it.
    """
    with ExitStack() as stack:
        data_set = stack.enter_context(open_data_set(file, limits))
        check_object(data_set.header)
        pixels = data_set.header.pixels
        assert pixels is not None
        if data_set.syntax.storage is Storage.FILM:
            yield stack.enter_context(open_dicom_film(data_set, pixels, limits))
        else:
            yield _open_pictures(data_set, pixels, limits, stack)


def _open_pictures(
    data_set: DataSet, pixels: Element, limits: IngestLimits, stack: ExitStack
) -> Clip:
    """Open a clip that is stored picture by picture."""
    header = data_set.header
    layout = read_layout(header, limits)
    stored = _locate(data_set, pixels, layout, limits, stack)
    check_frames(layout, stored.count, limits)
    probes = _probe(stored)
    lumas_of_probes = list(probes.values())
    calibration = calibrate(header, layout.rows, layout.columns, lumas_of_probes)
    times = frame_times(header, layout.declared_frames or stored.count, stored.count)
    notes = Notes(colour_overlay=calibration.shows_flow)
    for warning in (*stored.warnings, *times.warnings, *calibration.warnings):
        notes.warn(warning)

    def luma_at(index: int) -> NDArray[np.uint8]:
        stored_frame = stored.read(index)
        if index % COLOUR_PROBE_EVERY == 0 and not notes.colour_overlay:
            share = stored.decoder.coloured_share(stored_frame, calibration.region)
            notes.colour_overlay = share > COLOURED_SHARE
        probe = probes.pop(index, None)
        return stored.decoder.luma(stored_frame) if probe is None else probe

    lumas = decode_in_order(
        luma_at, stored.count, threads=stored.decoder.threads, budget_s=limits.decode_s
    )
    stack.callback(lumas.close)
    return Clip(
        frames=_numbered(lumas, times),
        frame_count=stored.count,
        size=(layout.rows, layout.columns),
        spacing_mm=calibration.spacing_mm,
        region=calibration.region,
        sector=find_fan(lumas_of_probes, calibration.region),
        time_base=times.base,
        view=view_of(header),
        encoding=f"DICOM, {stored.decoder.words}",
        heart_rate_bpm=heart_rate_bpm(header),
        r_wave_times_ms=r_wave_times_ms(header),
        notes=notes,
    )


def _probe(stored: "_Stored") -> dict[int, NDArray[np.uint8]]:
    """Decode a few frames from all over the clip; a broken one is reported when its turn comes."""
    lumas = {}
    for index in fan_probes(stored.count):
        with suppress(IngestError):
            lumas[index] = stored.decoder.luma(stored.read(index))
    return lumas


def _numbered(lumas: Iterator[NDArray[np.uint8]], times: FrameTimes) -> Iterator[Frame]:
    for seq, luma in enumerate(lumas):
        yield Frame(seq, times.of(seq), luma)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The frames as they lie in the file, and what decodes them."""

    count: int
    read: Callable[[int], bytes]
    decoder: Decoder
    warnings: tuple[str, ...]


def _locate(
    data_set: DataSet, pixels: Element, layout: Layout, limits: IngestLimits, stack: ExitStack
) -> _Stored:
    """Find the frames by what is really there, and the decoder for them."""
    window = data_set.window
    if is_encapsulated(pixels, window):
        frames = locate_fragments(pixels, window, data_set.header, layout.declared_frames)
    elif (bare := single_stream(pixels, window, layout)) is not None:
        frames = bare
    else:
        return _native(data_set, pixels, layout)
    read = frame_reader(frames, window)
    count, warnings = len(frames.pieces), frames.warnings
    first = read(0)
    if not is_end_whole(first, read(count - 1) if count > 1 else first):
        count, warnings = count - 1, (*warnings, "truncated_frames")
    decoder = choose_bounded(first, layout, limits, stack)
    return _Stored(count, read, decoder, warnings)


def _native(data_set: DataSet, pixels: Element, declared: Layout) -> _Stored:
    layout = as_stored(declared, pixels.length)
    frames = locate_native(pixels, data_set.window, layout.frame_bytes, layout.declared_frames)
    is_little = data_set.header.encoding.is_little
    is_swapped = not is_little and pixels.vr == b"OW" and layout.bytes_per_sample == 1
    read = frame_reader(frames, data_set.window)
    if is_swapped:
        read = _swapped_reader(frames, data_set.window, pixels.offset)
    decoder = choose_native(read(0), layout, is_little=is_little)
    warnings = (
        frames.warnings if layout == declared else (*frames.warnings, "chroma_not_subsampled")
    )
    return _Stored(len(frames.pieces), read, decoder, warnings)


def _swapped_reader(frames: Frames, window: Window, start: int) -> Callable[[int], bytes]:
    """Make a function that reads a frame of bytes which come in big-endian words.

    The words go on over the borders of frames, so that a frame of odd length shares one with the
    next.
    """

    def read(index: int) -> bytes:
        ((offset, length),) = frames.pieces[index]
        skipped = (offset - start) % 2
        words = window.read_at(offset - skipped, (skipped + length + 1) // 2 * 2)
        frame = swap_words(words)[skipped : skipped + length]
        if len(frame) < length:
            raise TruncatedError(f"the file ends inside the last word of frame {index}")
        return frame

    return read
