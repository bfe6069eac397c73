"""The pictures of a clip as they lie in its pixel data, and what decodes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from model.errors import TruncatedError
from model.pictures.decoder import Decoder, choose_native, is_end_whole
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
    return StoredPictures(count, read, choose(first, layout), warnings)


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
    return StoredPictures(len(frames.pieces), read, decoder, warnings)


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
