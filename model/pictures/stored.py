"""The pictures of a clip as they lie in its pixel data, and what decodes them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from model.errors import IngestError, TruncatedError
from model.pictures.decoder import Decoder, choose_native, is_end_whole, judge
from model.pictures.fragments import (
    Frames,
    PixelData,
    frame_reader,
    is_encapsulated,
    locate_fragments,
    locate_native,
    single_stream,
)
from model.pictures.layout import Layout, as_stored, swap_words
from model.pictures.window import Window

_LOOKED_AT = 5
"""Pictures of a clip that are looked at before it is shown: the first may be dim, or black."""

Choose: TypeAlias = Callable[[bytes, Layout], Decoder]
"""Makes the decoder of compressed frames from the first one and from what the header says."""


@dataclass(frozen=True, slots=True)
class StoredPictures:
    """The pictures of a clip, not yet decoded.

    Attributes:
        count: how many there are.
        read: gives the bytes of one by its index.
        decoder: what makes luma of these bytes.
        warnings: codes of what did not match the header.
    """

    count: int
    read: Callable[[int], bytes]
    decoder: Decoder
    warnings: tuple[str, ...]


def find_pictures(
    pixels: PixelData, window: Window, layout: Layout, choose: Choose
) -> StoredPictures:
    """Find the frames by what is really there, and the decoder for them.

    Args:
        pixels: where the pixel data lie.
        window: what they lie in.
        layout: what the header says.
        choose: makes the decoder where the frames are compressed.

    Raises:
        IngestError: whatever is wrong with them.
    """
    if is_encapsulated(pixels, window):
        frames = locate_fragments(pixels, window, layout.declared_frames)
    elif (bare := single_stream(pixels, window, layout)) is not None:
        frames = bare
    else:
        return _find_native(pixels, window, layout)
    read = frame_reader(frames, window)
    count, warnings = len(frames.pieces), frames.warnings
    first = read(0)
    if not is_end_whole(first, read(count - 1) if count > 1 else first):
        count, warnings = count - 1, (*warnings, "truncated_frames")
    return StoredPictures(count, read, _judged(choose(first, layout), read, count), warnings)


def _find_native(pixels: PixelData, window: Window, declared: Layout) -> StoredPictures:
    layout = as_stored(declared, pixels.length)
    frames = locate_native(pixels, window, layout.frame_bytes, layout.declared_frames)
    is_swapped = not pixels.is_little and pixels.is_words and layout.bytes_per_sample == 1
    read = frame_reader(frames, window)
    if is_swapped:
        read = _swapped_reader(frames, window, pixels.offset)
    decoder = choose_native(read(0), layout, is_little=pixels.is_little)
    warnings = (
        frames.warnings if layout == declared else (*frames.warnings, "chroma_not_subsampled")
    )
    count = len(frames.pieces)
    return StoredPictures(count, read, _judged(decoder, read, count), warnings)


def _judged(decoder: Decoder, read: Callable[[int], bytes], count: int) -> Decoder:
    """Look at pictures from all over a clip, where its header alone does not tell how they look."""
    layout = decoder.layout
    is_plain = layout.contrast is None and layout.bytes_per_sample == 1
    if is_plain or layout.palette is not None:
        return decoder
    some = []
    for index in sorted({part * count // _LOOKED_AT for part in range(_LOOKED_AT)}):
        with suppress(IngestError):  # a broken one is reported when its turn comes
            some.append(np.unique(decoder.components(read(index))))
    return judge(decoder, np.concatenate(some)) if some else decoder


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
