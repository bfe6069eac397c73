"""Files that the ingest tests open."""

from pathlib import Path

import pydicom.data
import pytest

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture
def sample_clip() -> Path:
    """A real apical clip of 30 JPEG frames, 240 x 320, that comes with pydicom."""
    return PYDICOM_FILES / "examples_ybr_color.dcm"
