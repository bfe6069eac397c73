"""A view's frames through the network that ships."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model import Frame, Predictor, Region, load_predictor
from server.analysis import Analysis
from server.ingest import decode_luma, open_clip, read_jpeg, read_sample
from server.study import analyse_clip
from tests.server.ingest.making import save, ultrasound

FPS = 60.0

Images = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor(threads=1, precision="f32")


@pytest.fixture(scope="module")
def images() -> Images:
    return [decode_luma(read_jpeg(jpeg)) for jpeg in read_sample().jpegs]


@pytest.fixture(scope="module")
def plain_ef(images: Images, predictor: Predictor) -> float:
    return ef_of(looped(images, 200), predictor)


def looped(images: Images, count: int) -> Images:
    return [images[k % len(images)] for k in range(count)]


def test_an_image_that_is_frozen_takes_no_ef_back(images: Images, predictor: Predictor) -> None:
    # A systole to and fro, so that it beats; then the freeze button is pressed.
    course = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    analysis = Analysis(predictor)
    for seq in range(131):
        image = images[course[seq % len(course)]]
        analysis.step(Frame(seq, round(1e6 * seq / FPS), image), keeps_outlines=False)
    before = analysis.ef
    assert before.state == "measured"
    for seq in range(131, 371):
        analysis.step(Frame(seq, round(1e6 * seq / FPS), image), keeps_outlines=False)
    assert analysis.ef == before
    analysis.finish()
    assert analysis.ef.state == "measured"
    assert analysis.ef.percent is not None
    assert before.percent is not None
    assert abs(analysis.ef.percent - before.percent) < 1
    assert "beat_not_confirmed" not in analysis.ef.reasons


def lifted(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a probe shows that hardly touches the patient: nothing of the deeper half."""
    shown_HW = image_HW.copy()
    shown_HW[image_HW.shape[0] // 2 :] = 0
    return shown_HW


def zoomed_out(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same image at six tenths of its size in the middle of a dark screen."""
    rows, columns = image_HW.shape
    small_HW = cv2.resize(image_HW, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    top, left = (rows - small_HW.shape[0]) // 2, (columns - small_HW.shape[1]) // 2
    screen_HW = np.zeros_like(image_HW)
    screen_HW[top:, left:][: small_HW.shape[0], : small_HW.shape[1]] = small_HW
    return screen_HW


def ef_of(frames: Sequence[NDArray[np.uint8]], predictor: Predictor) -> float:
    analysis = Analysis(predictor)
    for seq, image_HW in enumerate(frames):
        analysis.step(Frame(seq, round(1e6 * seq / 30), image_HW), keeps_outlines=False)
    analysis.finish()
    assert analysis.ef.percent is not None, analysis.ef
    return analysis.ef.percent


def side_by_side(left_HW: NDArray[np.uint8], right_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.hstack([left_HW, right_HW]))


def test_the_ef_of_one_of_two_hearts_on_the_screen_says_so(
    images: Images, predictor: Predictor, tmp_path: Path
) -> None:
    # Rest beside stress: the same heart later in its beat, so that the EF is known.
    frames = [side_by_side(images[k % 30], images[(k + 15) % 30]) for k in range(75)]
    analysis = Analysis(predictor)
    for seq, image_HW in enumerate(frames):
        analysis.step(Frame(seq, round(1e6 * seq / 30), image_HW), keeps_outlines=False)
    analysis.finish()
    assert "several_sectors" in analysis.ef.reasons
    path = save(ultrasound(np.stack(frames), FrameTime="33.333"), tmp_path / "clip")
    ef = analyse_clip(path, predictor).document["ef"]
    assert ef["state"] == "measured"
    assert "several_sectors" in ef["reasons"]
    path = save(ultrasound(np.stack(images * 2), FrameTime="33.333"), tmp_path / "alone")
    assert "several_sectors" not in analyse_clip(path, predictor).document["ef"]["reasons"]


def test_of_two_hearts_in_a_clip_the_one_that_beats_is_measured(
    images: Images, predictor: Predictor, tmp_path: Path
) -> None:
    for is_first in (True, False):
        pairs = [(images[k % 30], images[0])[:: 1 if is_first else -1] for k in range(60)]
        clip = np.stack([side_by_side(*pair) for pair in pairs])
        path = save(ultrasound(clip, FrameTime="33.333"), tmp_path / "clip")
        with open_clip(path) as opened:
            assert opened.sight is not None
            assert (opened.sight.left < 320) == is_first
        assert analyse_clip(path, predictor).document["ef"]["state"] == "measured"


def grabbed(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a frame grabber of video levels gives: black is 16, white 235."""
    return np.rint(16 + image_HW * (219 / 255)).astype(np.uint8)


def on_grey(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same image on a scanner's grey screen."""
    dark_HW = np.asarray(image_HW < 6, np.uint8)
    around_HW = cv2.morphologyEx(dark_HW, cv2.MORPH_OPEN, np.ones((15, 15), np.uint8))
    return np.where(around_HW == 1, np.uint8(60), image_HW)


@pytest.mark.parametrize("shown", [grabbed, on_grey])
def test_a_screen_that_is_not_black_makes_no_difference_to_the_heart_on_it(
    shown: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    images: Images,
    predictor: Predictor,
    plain_ef: float,
) -> None:
    found = ef_of([shown(image_HW) for image_HW in looped(images, 75)], predictor)
    assert found == pytest.approx(plain_ef, abs=5)


@pytest.mark.parametrize("before", [lifted, zoomed_out])
@pytest.mark.parametrize("back", [False, True])
def test_a_session_follows_an_image_that_changes_its_place_or_size(
    before: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    back: bool,
    images: Images,
    predictor: Predictor,
    plain_ef: float,
) -> None:
    # An EF is a ratio: the same heart has the same one at any size.
    plain = looped(images, 200)
    other = [before(image_HW) for image_HW in plain[:100]]
    shown = [*plain[:30], *other, *plain] if back else [*other, *plain]
    assert ef_of(shown, predictor) == pytest.approx(plain_ef, abs=2.5)


def test_the_heart_before_a_cut_has_no_part_in_the_ef_of_the_next(
    images: Images, predictor: Predictor, plain_ef: float, tmp_path: Path
) -> None:
    # The other heart: the sample in a mirror, of which a part of a systole goes to and fro.
    first = looped(images, 75)
    course = [*range(18, 27), *range(25, 18, -1)]
    other = [np.ascontiguousarray(images[course[k % 16]][:, ::-1]) for k in range(75)]
    alone = ef_of(other, predictor)
    assert abs(alone - plain_ef) > 8
    frames = [*first, *other]
    analysis, told = Analysis(predictor), []
    for seq, image_HW in enumerate(frames):
        analysis.step(Frame(seq, round(1e6 * seq / 30), image_HW), keeps_outlines=False)
        told.append(analysis.ef.percent)
    shown = [each for each in told[78:] if each is not None]
    assert shown == pytest.approx(len(shown) * [alone], abs=4)
    file = save(ultrasound(np.stack(frames), FrameTime="33.333"), tmp_path / "two.dcm")
    ef = analyse_clip(file, predictor).findings.ef
    assert "picture_changed" in ef.reasons
    assert ef.percent == pytest.approx(alone, abs=5)


def test_no_millilitres_are_told_of_an_image_that_changed_its_size_until_it_is_back(
    images: Images, predictor: Predictor
) -> None:
    analysis = Analysis(predictor, spacing_mm=(0.5, 0.5))
    seq, told = 0, []
    # it takes up to 104 frames until a smaller image is noticed
    for scene, frames in ((None, 90), (zoomed_out, 120), (None, 90), (lifted, 150), (None, 60)):
        readings = []
        for _ in range(frames):
            image_HW = images[seq % len(images)]
            shown_HW = image_HW if scene is None else scene(image_HW)
            frame = Frame(seq, round(1e6 * seq / 30), shown_HW)
            readings.append(analysis.step(frame, keeps_outlines=False).reading)
            seq += 1
        measured = [each for each in readings[-15:] if each.lv is not None]
        known = {each.lv is not None and each.lv.volume_ml is not None for each in measured}
        warned = {"scale_changed" in each.quality.reasons for each in measured}
        told.append((known, warned))
    right, none = ({True}, {False}), ({False}, {True})
    assert told == [right, none, right, (set(), set()), right]


def nearer(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same fan at five sixths of its depth: every pixel has another size."""
    matrix = np.array([[1.2, 0, -0.2 * 191], [0, 1.2, -0.2 * 14]])  # the fan's tip stays
    size = image_HW.shape[1], image_HW.shape[0]
    scaled_HW = cv2.warpAffine(image_HW, matrix, size, flags=cv2.INTER_LINEAR)
    return np.where(image_HW > 0, scaled_HW, np.uint8(0))


def test_no_millilitres_are_told_of_an_image_whose_depth_changed_within_its_fan(
    images: Images, predictor: Predictor
) -> None:
    # Pixels 1.2 times as fine make a volume of the old size 1.7 times as large.
    analysis = Analysis(predictor, Region(15, 43, 195, 222), spacing_mm=(0.5, 0.5))
    plain = looped(images, 75)
    told = []
    for seq, image_HW in enumerate([*plain, *map(nearer, plain), *plain]):
        frame = Frame(seq, round(1e6 * seq / 30), image_HW)
        reading = analysis.step(frame, keeps_outlines=False).reading
        told.append(reading.lv is None or reading.lv.volume_ml is None)
    assert told[:75] == 75 * [False]
    assert told[77:150] == 73 * [True]
    assert told[160:] == 65 * [False]
