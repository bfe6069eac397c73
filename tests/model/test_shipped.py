"""The network that ships, on whatever a probe may send."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from model.delta import memory_bound
from model.frame import Frame, Region
from model.postprocess import to_source_labels
from model.predictor import Predictor, StreamState, load_predictor
from server.ingest.sample import read_sample

FRAME = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=16, max_side=70))
EXTREMES = (0, 255)


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return load_predictor(threads=1, precision="f32")


def heads_norm(state: StreamState) -> float:
    """The largest Frobenius norm of a head's memory."""
    memory_BMKV = dict(zip(state.memory.spec.names, state.memory.arrays, strict=True))["memory"]
    return float(np.sqrt(np.square(memory_BMKV).sum(axis=(2, 3))).max())


def bound(predictor: Predictor) -> float:
    config = predictor.model.config
    return memory_bound(config.key_width, config.value_width, config.alpha_max)


@settings(max_examples=40)
@given(frames=st.lists(FRAME, min_size=1, max_size=3), is_declared=st.booleans())
def test_any_frames_give_probabilities_that_are_numbers(
    shipped: Predictor, frames: list[NDArray[np.uint8]], is_declared: bool
) -> None:
    for first in frames:
        region = Region(0, 0, *first.shape) if is_declared else None
        state = shipped.start(region)
        for seq, other in enumerate(frames):
            pixels_HW = np.resize(other, first.shape)
            mask, state = shipped.step(Frame(seq, None, pixels_HW), state)
            assert np.isfinite(mask.probabilities_NHW).all()
            assert mask.probabilities_NHW.min() >= 0.0
            assert mask.probabilities_NHW.sum(axis=0).max() <= 1.0 + 1e-4
            assert 0.0 <= mask.presence <= 1.0
            assert heads_norm(state) <= bound(shipped)


@pytest.mark.parametrize("pattern", ["black", "white", "flicker", "checkers", "noise"])
def test_sixty_extreme_frames_keep_the_state_inside_its_bound(
    shipped: Predictor, pattern: str
) -> None:
    rng = np.random.default_rng(0)
    checkers_HW = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    state = shipped.start(Region(0, 0, 64, 64))
    for seq in range(60):
        noise_HW = rng.choice(np.array(EXTREMES, np.uint8), (64, 64))
        pixels_HW = {
            "black": np.zeros((64, 64), np.uint8),
            "white": np.full((64, 64), 255, np.uint8),
            "flicker": np.full((64, 64), EXTREMES[seq % 2], np.uint8),
            "checkers": checkers_HW if seq % 2 else 255 - checkers_HW,
            "noise": noise_HW,
        }[pattern]
        mask, state = shipped.step(Frame(seq, None, pixels_HW), state)
        assert np.isfinite(mask.probabilities_NHW).all()
    assert 0.0 < heads_norm(state) <= bound(shipped)
    sensory_BCHW = state.memory.arrays[state.memory.spec.names.index("sensory")]
    assert np.abs(sensory_BCHW).max() <= 1.0


def test_a_session_that_starts_anew_gets_the_bits_of_the_first_one(shipped: Predictor) -> None:
    rng = np.random.default_rng(5)
    clip = [rng.integers(0, 256, (80, 90), np.uint8) for _ in range(4)]

    def answers() -> list[bytes]:
        state, found = shipped.start(Region(0, 0, 80, 90)), []
        for seq, pixels_HW in enumerate(clip):
            mask, state = shipped.step(Frame(seq, None, pixels_HW), state)
            found.append(mask.probabilities_NHW.tobytes())
        return found

    first = answers()
    assert len(set(first)) == len(first)
    assert answers() == first


def test_eight_bits_draw_what_float32_draws(shipped: Predictor) -> None:
    quantised = load_predictor(threads=1, precision="int8")
    frames = [
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        for jpeg in read_sample().jpegs
    ]
    found = []
    for predictor in (shipped, quantised):
        state, labels = predictor.start(), []
        for seq, pixels in enumerate(frames):
            mask, state = predictor.step(Frame(seq, None, np.asarray(pixels, np.uint8)), state)
            assert mask.presence > 0.8
            labels.append(to_source_labels(mask))
        found.append(np.stack(labels))
    exact_THW, rounded_THW = found
    for label in (1, 2, 3):
        one_THW, other_THW = exact_THW == label, rounded_THW == label
        both_T = (one_THW & other_THW).sum(axis=(1, 2))
        dice_T = 2 * both_T / (one_THW.sum(axis=(1, 2)) + other_THW.sum(axis=(1, 2)))
        assert dice_T.mean() > 0.99
