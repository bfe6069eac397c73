import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import FrameError
from model.frame import MAX_SIDE_PX, Fit, Frame, Region

SCALES = st.floats(0.01, 20.0)
OFFSETS = st.floats(-500.0, 500.0)


@pytest.mark.parametrize(
    ("pixels_HW", "named"),
    [
        (np.zeros((32, 32, 3), np.uint8), "(32, 32, 3)"),
        (np.zeros((32, 32), np.float32), "float32"),
        (np.zeros((32, 32), np.uint16), "uint16"),
        (np.zeros((15, 32), np.uint8), "(15, 32)"),
        (np.zeros((32, 0), np.uint8), "(32, 0)"),
        (np.zeros((16, MAX_SIDE_PX + 1), np.uint8), "8193"),
    ],
)
def test_what_is_no_grey_image_of_a_possible_size_is_refused_and_named(
    pixels_HW: np.ndarray, named: str
) -> None:
    with pytest.raises(FrameError) as refusal:
        Frame(0, None, pixels_HW)
    assert named in refusal.value.message


@pytest.mark.parametrize("size", [(16, 16), (16, MAX_SIDE_PX), (600, 800)])
def test_images_up_to_the_limits_are_frames(size: tuple[int, int]) -> None:
    assert Frame(0, 40_000, np.zeros(size, np.uint8)).pixels_HW.shape == size


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0)])
def test_a_region_without_pixels_or_before_the_image_is_refused(
    box: tuple[int, int, int, int],
) -> None:
    with pytest.raises(FrameError, match="corner >= 0 and sides >= 1"):
        Region(*box)


@given(SCALES, SCALES, OFFSETS, OFFSETS, st.floats(0, 8192), st.floats(0, 8192))
def test_a_point_taken_to_the_network_and_back_is_where_it_was(
    scale_row: float, scale_col: float, offset_row: float, offset_col: float, row: float, col: float
) -> None:
    fit = Fit(scale_row, scale_col, offset_row, offset_col, Region(0, 0, 9, 9), (9, 9), 144)
    point_P2 = np.array([[row, col]])
    there_P2 = fit.to_network(point_P2)
    np.testing.assert_allclose(
        there_P2[0], [row * scale_row + offset_row, col * scale_col + offset_col]
    )
    np.testing.assert_allclose(fit.to_source(there_P2), point_P2, atol=1e-8, rtol=1e-9)
