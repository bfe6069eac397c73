"""The clip to try this program on: a real apical four-chamber view that pydicom carries."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydicom import dcmread
from pydicom.encaps import generate_frames

from server.ingest.errors import NotAClipError

VIEW = "A4C"
"""The file does not say; seen by eye."""


@dataclass(frozen=True, slots=True)
class SampleClip:
    """The sample as its frames are stored.

    Attributes:
        jpegs: one file a frame.
        size: rows and columns.
        spacing_mm: None: its region, and so its calibration, lies outside the image.
    """

    jpegs: tuple[bytes, ...]
    size: tuple[int, int]
    frame_time_ms: float
    spacing_mm: tuple[float, float] | None = None
    view: str = VIEW


def sample_path() -> Path:
    """Where the sample lies.

    Raises:
        NotAClipError: pydicom is installed without it.
    """
    spec = find_spec("pydicom")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "test_files" / "examples_ybr_color.dcm"
    if not path.is_file():
        raise NotAClipError("pydicom is installed without its sample clip")
    return path


def read_sample() -> SampleClip:
    """Read the sample's frames without decoding them.

    Raises:
        NotAClipError: pydicom is installed without it.
    """
    data_set = dcmread(sample_path())
    count = int(data_set.NumberOfFrames)
    jpegs = tuple(generate_frames(data_set.PixelData, number_of_frames=count))
    size = int(data_set.Rows), int(data_set.Columns)
    return SampleClip(jpegs, size, float(data_set.FrameTime))
