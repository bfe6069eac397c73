"""A DICOM file into a clip: its header, then where the frames lie, then one by one to luma."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model import Frame, choose_sector, fan_probes, find_fan, rescale, square_size
from model.pictures import (
    COLOUR_LOOK_FRAMES,
    COLOURED_SHARE,
    PixelData,
    Storage,
    StoredPictures,
    coloured_share,
    find_pictures,
)
from server.ingest.clip import Clip, IngestLimits, Notes
from server.ingest.dataset import DataSet, check_object, open_data_set
from server.ingest.decode import choose_bounded
from server.ingest.dicom_film import open_dicom_film
from server.ingest.elements import Element
from server.ingest.errors import IngestError
from server.ingest.layout import check_frames, check_size, read_layout
from server.ingest.prefetch import decode_in_order
from server.ingest.region import calibrate, pixel_width, tissue, view_of
from server.ingest.tags import Tag
from server.ingest.timing import FrameTimes, frame_times, heart_rate_bpm, r_wave_times_ms

_Picture: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
"""A frame's luma, and its colours where they are looked at."""


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
    held = PixelData(
        pixels.offset,
        pixels.length,
        is_words=pixels.vr == b"OW",
        is_little=header.encoding.is_little,
        frame_offsets=tuple(int(each) for each in header.binary(Tag.ExtendedOffsetTable, "Q")),
    )
    choose = partial(choose_bounded, limits=limits, stack=stack)
    stored = find_pictures(held, data_set.window, layout, choose)
    check_frames(layout, stored.count, limits)
    probes = _probe(stored)
    stored_size = layout.rows, layout.columns
    calibration = calibrate(header, *stored_size, list(probes.values()))
    size = square_size(stored_size, pixel_width(header, calibration) or 1.0)
    check_size(*size, limits)
    shown = [rescale(probe, size) for probe in probes.values()]
    one = choose_sector(shown)
    region = (calibration.region and calibration.region.scaled(stored_size, size)) or one
    sector = find_fan(shown, region)
    inside_HW = tissue(sector, region, size, stored_size)
    times = frame_times(header, layout.declared_frames or stored.count, stored.count)
    notes = Notes(colour_overlay=calibration.shows_flow)
    for warning in (*stored.warnings, *times.warnings, *calibration.warnings):
        notes.warn(warning)
    if size != stored_size:
        notes.warn("pixels_made_square")

    def picture_at(index: int) -> _Picture:
        stored_frame = stored.read(index)
        colours = stored.decoder.colours(stored_frame) if index % COLOUR_LOOK_FRAMES == 0 else None
        if colours is not None and not notes.colour_overlay:
            notes.colour_overlay = coloured_share(colours, inside_HW) > COLOURED_SHARE
        probe = probes.pop(index, None)
        luma = stored.decoder.luma(stored_frame) if probe is None else probe
        return rescale(luma, size), colours

    pictures = decode_in_order(
        picture_at, stored.count, threads=stored.decoder.threads, budget_s=limits.decode_s
    )
    stack.callback(pictures.close)
    return Clip(
        frames=_numbered(pictures, times),
        frame_count=stored.count,
        size=size,
        spacing_mm=calibration.spacing_mm,
        region=region,
        sector=sector,
        is_one_of_several=one is not None,
        time_base=times.base,
        view=view_of(header),
        encoding=f"DICOM, {stored.decoder.words}",
        heart_rate_bpm=heart_rate_bpm(header),
        r_wave_times_ms=r_wave_times_ms(header),
        notes=notes,
    )


def _probe(stored: StoredPictures) -> dict[int, NDArray[np.uint8]]:
    """Decode a few frames from all over the clip; a broken one is reported when its turn comes."""
    lumas = {}
    for index in fan_probes(stored.count):
        with suppress(IngestError):
            lumas[index] = stored.decoder.luma(stored.read(index))
    return lumas


def _numbered(pictures: Iterator[_Picture], times: FrameTimes) -> Iterator[Frame]:
    for seq, (luma, colours) in enumerate(pictures):
        yield Frame(seq, times.of(seq), luma, colours)
