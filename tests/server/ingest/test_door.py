from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from server.ingest import IngestError, IngestLimits, open_clip

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


def test_the_sample_clip_opens_with_its_frames_times_and_warning(sample_clip: Path) -> None:
    with open_clip(sample_clip) as clip:
        frames = list(clip.frames)
    assert [frame.seq for frame in frames] == list(range(30))
    # its header says FrameTime 33.333 ms
    assert [frame.time_us for frame in frames] == [round(33333 * seq) for seq in range(30)]
    assert clip.frame_count == 30
    assert clip.size == (240, 320)
    assert clip.time_base.source == "FrameTime"
    assert clip.time_base.duration_ms == pytest.approx(30 * 33.333)
    assert not clip.colour_overlay
    assert clip.view is None


def test_a_region_outside_the_image_takes_the_calibration_with_it(sample_clip: Path) -> None:
    declared = pydicom.dcmread(sample_clip).SequenceOfUltrasoundRegions[0]
    assert declared.RegionLocationMaxX1 > 320  # the pixels were halved, the region was not
    with open_clip(sample_clip) as clip:
        assert clip.region is None
        assert clip.spacing_mm is None
        assert clip.warnings == ("region_outside_image",)


def test_the_sample_clip_has_the_luma_that_pydicom_decodes(sample_clip: Path) -> None:
    ybr = pydicom.dcmread(sample_clip).pixel_array  # decoded by another library, as RGB
    expected = ybr.astype(np.float64) @ [0.299, 0.587, 0.114]
    with open_clip(sample_clip) as clip:
        for frame, luma in zip(clip.frames, expected, strict=True):
            assert np.abs(frame.pixels_HW - luma).mean() < 1.0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("CT_small.dcm", "unsupported_modality"),
        ("MR_truncated.dcm", "unsupported_modality"),
        ("test-SR.dcm", "no_pixels"),
        ("no_meta.dcm", "malformed_header"),
        ("meta_missing_tsyntax.dcm", "malformed_header"),
        ("dicomdirtests/DICOMDIR", "no_pixels"),
        ("README.txt", "not_a_clip"),
    ],
)
def test_a_file_that_is_no_clip_is_refused_by_what_it_is(name: str, code: str) -> None:
    with pytest.raises(IngestError) as refusal, open_clip(PYDICOM_FILES / name):
        pass
    assert refusal.value.code == code
    assert name not in refusal.value.message


def test_an_empty_file_is_refused_as_empty(tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()
    with pytest.raises(IngestError) as refusal, open_clip(tmp_path / "nothing"):
        pass
    assert refusal.value.code == "empty"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (IngestLimits(file_bytes=10_000), "too_large"),
        (IngestLimits(frame_pixels=240 * 320 - 1), "too_large"),
        (IngestLimits(decoded_bytes=30 * 240 * 320 * 3 - 1), "too_large"),
        (IngestLimits(frames=29), "too_many_frames"),
        (IngestLimits(header_elements=10), "malformed_header"),
    ],
)
def test_each_limit_refuses_what_is_just_beyond_it(
    sample_clip: Path, limits: IngestLimits, code: str
) -> None:
    with pytest.raises(IngestError) as refusal, open_clip(sample_clip, limits):
        pass
    assert refusal.value.code == code


def test_limits_that_just_hold_let_the_clip_in(sample_clip: Path) -> None:
    limits = IngestLimits(
        file_bytes=sample_clip.stat().st_size,
        frame_pixels=240 * 320,
        decoded_bytes=30 * 240 * 320 * 3,
        frames=30,
    )
    with open_clip(sample_clip, limits) as clip:
        assert sum(1 for _ in clip.frames) == 30


def test_reading_takes_no_longer_than_allowed(sample_clip: Path) -> None:
    with (
        open_clip(sample_clip, IngestLimits(decode_s=0.0)) as clip,
        pytest.raises(IngestError) as refusal,
    ):
        list(clip.frames)
    assert refusal.value.code == "too_slow"


def test_a_clip_that_is_only_half_read_closes(sample_clip: Path) -> None:
    with open_clip(sample_clip) as clip:
        assert next(clip.frames).seq == 0
    with pytest.raises(StopIteration):
        next(clip.frames)
