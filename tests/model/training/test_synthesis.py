from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.training.clips import Patient, read_patients
from model.training.config import TrainConfig
from model.training.look import apply_look
from model.training.synthesis import (
    CORRUPTIONS,
    Batch,
    Corruption,
    contraction,
    corrupt,
    draw_batch,
    make_batch,
    random_corruption,
    random_view,
)

CONFIG = TrainConfig("data", batch=6, clip_frames=4, seed=3)


@pytest.fixture
def patients(data: Path) -> list[Patient]:
    return read_patients(data / "train", 96)


def equal(one: Batch, other: Batch) -> bool:
    return (
        np.array_equal(one.images_BTHW, other.images_BTHW)
        and np.array_equal(one.labels_BTNHW, other.labels_BTNHW)
        and np.array_equal(one.presence_BT, other.presence_BT)
    )


def test_a_beat_contracts_once_and_begins_again() -> None:
    time = np.linspace(0.0, 1.0, 1000, endpoint=False)
    depth = contraction(time)
    assert depth[0] == 0.0
    assert depth.max() == 1.0
    assert time[depth.argmax()] == pytest.approx(0.35, abs=0.002)  # systole: a third of a beat
    np.testing.assert_allclose(contraction(time + 3.0), depth, atol=1e-9)
    early = depth[: depth.argmax()]
    assert (np.diff(early) >= 0).all()
    # filling pauses between the early wave and the atrial kick
    assert contraction(np.array([0.60, 0.82])) == pytest.approx([0.30, 0.22])


def test_a_batch_is_a_function_of_the_seed_and_the_step_alone(patients: list[Patient]) -> None:
    batch = make_batch(patients, [], CONFIG, 7)
    np.random.seed(0)
    assert equal(make_batch(patients, [], CONFIG, 7), batch)
    assert not equal(make_batch(patients, [], CONFIG, 8), batch)
    assert not equal(make_batch(patients, [], replace(CONFIG, seed=4), 7), batch)


@pytest.mark.parametrize("clip_frames", [1, 4])
def test_a_batch_holds_grey_values_and_distributions(
    patients: list[Patient], clip_frames: int
) -> None:
    config = replace(CONFIG, clip_frames=clip_frames, negative_share=0.3, burst_share=1.0)
    for step in range(6):
        batch = make_batch(patients, [], config, step)
        assert batch.images_BTHW.shape == (6, clip_frames, 48, 48)
        assert batch.labels_BTNHW.shape == (6, clip_frames, 4, 48, 48)
        for array in (batch.images_BTHW, batch.labels_BTNHW, batch.presence_BT):
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
            assert array.min() >= 0.0
            assert array.max() <= 1.0 + 1e-6
        np.testing.assert_allclose(batch.labels_BTNHW.sum(axis=2), 1.0, atol=0.02)


def test_what_shows_no_heart_has_no_labels_and_no_presence(patients: list[Patient]) -> None:
    config = replace(CONFIG, negative_share=1.0, batch=20)
    batch = make_batch(patients, [], config, 0)
    assert not batch.presence_BT.any()
    assert not batch.labels_BTNHW[:, :, 1:].any()
    assert (batch.labels_BTNHW[:, :, 0] == 1.0).all()


def test_hearts_alone_are_all_present_and_beat(patients: list[Patient]) -> None:
    # 50 frames at 0.02 beats a frame or more hold a whole beat of 0.7 of the motion or more:
    # the axes shrink to 1 - 0.7 * 0.25 of themselves
    config = replace(CONFIG, negative_share=0.0, burst_share=0.0, clip_frames=50, batch=3)
    batch = make_batch(patients, [], config, 0)
    assert batch.presence_BT.all()
    areas_BT = batch.labels_BTNHW[:, :, 1].sum(axis=(2, 3))
    assert (areas_BT.min(axis=1) / areas_BT.max(axis=1) < 0.825**2 + 0.05).all()


def test_a_burst_leaves_the_first_frame_and_the_truth_alone(patients: list[Patient]) -> None:
    clean = replace(CONFIG, negative_share=0.0, burst_share=0.0, batch=1, clip_frames=6)
    changed = 0
    for step in range(12):
        calm = make_batch(patients, [], clean, step)
        burst = make_batch(patients, [], replace(clean, burst_share=1.0), step)
        np.testing.assert_array_equal(burst.labels_BTNHW, calm.labels_BTNHW)
        np.testing.assert_array_equal(burst.images_BTHW[:, 0], calm.images_BTHW[:, 0])
        is_changed_T = (burst.images_BTHW != calm.images_BTHW).any(axis=(0, 2, 3))
        assert 1 <= is_changed_T.sum() <= 4
        changed += int(is_changed_T.sum())
        # what is black or all but black shows no heart
        is_dark_T = burst.images_BTHW.max(axis=(0, 2, 3)) <= 0.1 + 1e-6
        assert not burst.presence_BT[0, is_dark_T].any()
    assert changed > 12


@pytest.mark.parametrize("kind", range(CORRUPTIONS))
def test_a_corrupted_frame_is_an_image_unlike_the_clean_one(kind: int) -> None:
    clean = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    clean[:, :8] = 0.0
    for seed in range(5):
        bad = corrupt(clean, random_corruption(kind, np.random.default_rng(seed)))
        assert bad.shape == clean.shape
        assert bad.dtype == np.float32
        assert 0.0 <= bad.min() <= bad.max() <= 1.0
        assert not np.array_equal(bad, clean)
        if kind != 5:  # a blur alone carries light into the dark
            assert not bad[:, :8].any()


@pytest.mark.parametrize(("kind", "second"), [(1, 3.0), (6, 1.0), (6, -1.0)])
@pytest.mark.parametrize("share", [0.2, 0.3])
def test_a_view_is_absent_where_lost_contact_hides_a_quarter_of_the_ventricle(
    patients: list[Patient], kind: int, second: float, share: float
) -> None:
    # Of a ventricle of 10 x 10 px one share lies on one side of the image's middle line, where the
    # angle is 0, and the rest on the other.
    lv_HW = np.zeros((48, 48), np.float32)
    hidden = round(10 * share)
    first = 24 - hidden if second < 0 else 25 - 10 + hidden
    lv_HW[20:30, first : first + 10] = 1.0
    bad = Corruption(kind, (0.0, second, 0.0), 0)
    assert corrupt(lv_HW, bad).sum() == (pytest.approx(100 - 10 * hidden) if kind == 6 else 0.0)
    plan = replace(draw_batch(patients, [], CONFIG, 0)[0], negative_HW=None, bad={1: bad})
    is_hidden = kind == 6 and share > 0.25
    assert plan.presence(np.stack([lv_HW] * 4)).tolist() == [1.0, float(not is_hidden), 1.0, 1.0]


def test_a_look_is_gamma_gain_and_offset_on_lit_pixels_alone() -> None:
    image = np.array([[0.0, 0.25, 0.81, 1.0]], np.float32)
    shown = apply_look(image, (0.5, 0.8, 0.05))
    np.testing.assert_allclose(shown, [[0.0, 0.45, 0.77, 0.85]], atol=1e-6)
    np.testing.assert_allclose(apply_look(image, (1.0, 3.0, 0.0)), [[0.0, 0.75, 1.0, 1.0]])


def test_random_views_stay_near_the_working_grid() -> None:
    for seed in range(30):
        grid = random_view(np.random.default_rng(seed), 96).grid(96)
        assert grid.shape == (96, 96, 2)
        assert grid.dtype == np.float32
        # shifts of at most 8 % about the middle, and elastic bumps of a few pixels
        assert np.abs(grid.mean(axis=(0, 1)) - 47.5).max() < 0.08 * 96 + 3
