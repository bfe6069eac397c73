"""How frames are found among fragments, whatever tables and counts say, and in cut files."""

from pathlib import Path
from typing import Any

import numpy as np
import openjpeg
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from model.pictures import Window
from server.ingest import Clip, IngestError, open_clip
from tests.server.ingest.making import COUNT, grey_cine, save, ultrasound


def read(path: Path) -> tuple[Clip, NDArray[np.uint8]]:
    with open_clip(path) as clip:
        return clip, np.array([frame.pixels_HW for frame in clip.frames])


def refusal_of(path: Path) -> str:
    with pytest.raises(IngestError) as refusal, open_clip(path) as clip:
        list(clip.frames)
    return refusal.value.code


def j2k(frame: NDArray[Any]) -> bytes:
    return bytes(openjpeg.utils.encode_array(frame))


def jpeg_frames(path: Path) -> tuple[Dataset, list[bytes]]:
    """The sample clip's header and its JPEG frames."""
    made = pydicom.dcmread(path)
    fragments = generate_fragments(made.PixelData)
    next(fragments)
    return made, list(fragments)[:COUNT]


@pytest.fixture
def expected(sample_clip: Path) -> NDArray[np.uint8]:
    """The first frames, which other tests compare with another decoder's."""
    return read(sample_clip)[1][:COUNT]


def item(payload: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(payload).to_bytes(4, "little") + payload


def split(frame: bytes, length: int) -> list[bytes]:
    return [frame[start : start + length] for start in range(0, len(frame), length)]


def offsets(frames: list[list[bytes]]) -> list[int]:
    """Where each frame's first item starts, counted from the first one's."""
    starts, position = [], 0
    for fragments in frames:
        starts.append(position)
        position += sum(8 + len(fragment) for fragment in fragments)
    return starts


@pytest.mark.parametrize("table", ["right", "empty", "wrong", "short", "extended"])
@pytest.mark.parametrize("declared", [COUNT, None])
def test_frames_in_many_fragments_are_put_together(
    tmp_path: Path,
    sample_clip: Path,
    expected: NDArray[np.uint8],
    table: str,
    declared: int | None,
) -> None:
    made, frames = jpeg_frames(sample_clip)
    pieces = [split(frame, 1000) for frame in frames]
    starts = offsets(pieces)
    made.NumberOfFrames = COUNT
    if declared is None:
        del made.NumberOfFrames
    written = {"right": starts, "wrong": [0, 4, 44], "short": starts[:2]}.get(table, [])
    if table == "extended":
        made.ExtendedOffsetTable = np.array(starts, "<u8").tobytes()
        made.ExtendedOffsetTableLengths = np.array(
            [sum(map(len, fragments)) for fragments in pieces], "<u8"
        ).tobytes()
    items = [item(np.array(written, "<u4").tobytes())]
    items += [item(fragment) for fragments in pieces for fragment in fragments]
    path = save(made, tmp_path / "clip", JPEGBaseline8Bit, b"".join(items))
    clip, lumas = read(path)
    assert np.array_equal(lumas, expected)
    assert clip.frame_count == COUNT


def test_a_clip_cut_between_or_inside_frames_gives_the_whole_ones(
    tmp_path: Path, sample_clip: Path
) -> None:
    data = sample_clip.read_bytes()
    whole = read(sample_clip)[1]
    made = pydicom.dcmread(sample_clip)
    encoded = made.PixelData
    start = data.index(encoded[:64])
    lengths = [len(fragment) + 8 for fragment in generate_fragments(encoded)]
    for cut, found in [
        (sum(lengths[:11]), 10),  # just after ten frames
        (sum(lengths[:11]) + 3, 10),  # inside an item's head
        (sum(lengths[:12]) - 1, 10),  # one byte before the eleventh ends
        (sum(lengths[:12]), 11),
    ]:
        path = tmp_path / f"cut-{cut}"
        path.write_bytes(data[: start + cut])
        clip, lumas = read(path)
        assert np.array_equal(lumas, whole[:found])
        assert clip.frame_count == found
        assert "truncated_frames" in clip.warnings


def test_a_last_frame_that_lacks_its_end_is_left_out(
    tmp_path: Path, sample_clip: Path, expected: NDArray[np.uint8]
) -> None:
    made, frames = jpeg_frames(sample_clip)
    made.NumberOfFrames = COUNT
    half = frames[2][: len(frames[2]) // 4 * 2]
    path = save(made, tmp_path / "clip", JPEGBaseline8Bit, [*frames[:2], half])
    clip, lumas = read(path)
    assert np.array_equal(lumas, expected[:2])
    assert "truncated_frames" in clip.warnings


def test_an_only_frame_that_lacks_its_end_is_refused(tmp_path: Path, sample_clip: Path) -> None:
    made, frames = jpeg_frames(sample_clip)
    made.NumberOfFrames = 1
    half = frames[0][: len(frames[0]) // 4 * 2]
    assert refusal_of(save(made, tmp_path / "clip", JPEGBaseline8Bit, [half])) == "truncated"


@pytest.mark.parametrize("padding", [b"\0\0", b"\0" * 20])
def test_zeros_before_a_jpeg_are_skipped(
    tmp_path: Path, sample_clip: Path, expected: NDArray[np.uint8], padding: bytes
) -> None:
    made, frames = jpeg_frames(sample_clip)
    made.NumberOfFrames = COUNT
    encoded = [padding + frame for frame in frames]
    path = save(made, tmp_path / "clip", JPEGBaseline8Bit, encoded)
    assert np.array_equal(read(path)[1], expected)


def test_what_the_frames_are_overrules_the_transfer_syntax(
    tmp_path: Path, sample_clip: Path, expected: NDArray[np.uint8]
) -> None:
    made, frames = jpeg_frames(sample_clip)
    made.NumberOfFrames = COUNT
    assert np.array_equal(read(save(made, tmp_path / "a", RLELossless, frames))[1], expected)
    native = ultrasound(grey_cine(1), NumberOfFrames=1)
    stream = j2k(grey_cine()[0])
    native.PixelData = stream + b"\0" * (len(stream) % 2)
    clip, lumas = read(save(native, tmp_path / "b"))
    assert np.array_equal(lumas, grey_cine(1))
    assert clip.warnings == ("native_pixel_data_compressed",)


def test_native_frames_in_fragments_are_read(tmp_path: Path) -> None:
    frames = [frame.tobytes() for frame in grey_cine()]
    path = save(ultrasound(grey_cine()), tmp_path / "clip", "1.2.840.10008.1.2.1.98", frames)
    assert np.array_equal(read(path)[1], grey_cine())


def test_encapsulated_frames_of_pydicom_itself_are_read(tmp_path: Path) -> None:
    made = ultrasound(grey_cine())
    frames = [j2k(frame) for frame in grey_cine()]
    path = save(
        made, tmp_path / "clip", JPEG2000Lossless, encapsulate(frames, fragments_per_frame=3)
    )
    assert np.array_equal(read(path)[1], grey_cine())


def test_an_offset_table_of_any_length_is_read_no_further_than_there_may_be_frames(
    tmp_path: Path, sample_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, frames = jpeg_frames(sample_clip)
    table = item(b"\0" * (8 << 20))
    pixels = table + b"".join(item(frame + b"\0" * (len(frame) % 2)) for frame in frames)
    path = save(made, tmp_path / "clip", JPEGBaseline8Bit, pixels)
    asked, read_at = [], Window.read_at

    def counted(window: Window, offset: int, length: int) -> bytes:
        asked.append(length)
        return read_at(window, offset, length)

    monkeypatch.setattr(Window, "read_at", counted)
    assert len(read(path)[1]) == len(frames)
    assert max(asked) <= 1 << 20
