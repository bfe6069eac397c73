from pathlib import Path

import cv2
import numpy as np
import pytest

from model.errors import FrameError
from model.training.feed import read_negatives


def test_images_of_no_heart_are_read_in_order_of_name(tmp_path: Path) -> None:
    for name, level in (("b", 2), ("a", 1)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30), level, np.uint8))
    assert [int(image.max()) for image in read_negatives(str(tmp_path))] == [1, 2]
    assert read_negatives("") == []


def test_a_folder_without_images_of_no_heart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="no PNG"):
        read_negatives(str(tmp_path))
    with pytest.raises(FrameError, match="nowhere"):
        read_negatives(str(tmp_path / "nowhere"))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30), np.uint8))
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(FrameError, match=r"b\.png"):
        read_negatives(str(tmp_path))
