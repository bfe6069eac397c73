import hashlib

import numpy as np
import pytest

from model.errors import StateError
from model.state import MemoryState, StateSpec

SPEC = StateSpec(("memory", "sensory"), ((1, 2, 4, 3), (1, 2, 3, 3)))
MODEL = hashlib.sha256(b"one model").hexdigest()


def a_state() -> MemoryState:
    rng = np.random.default_rng(5)
    return MemoryState(SPEC, tuple(rng.normal(size=s).astype(np.float32) for s in SPEC.shapes))


BLOB = a_state().to_bytes(MODEL)


def test_the_first_frame_meets_zeros() -> None:
    state = MemoryState.zeros(SPEC)
    assert [array.shape for array in state.arrays] == list(SPEC.shapes)
    assert not any(array.any() for array in state.arrays)
    assert SPEC.entries == 2 * 4 * 3 + 2 * 3 * 3


def test_a_saved_state_comes_back_to_the_bit() -> None:
    state = a_state()
    found = MemoryState.from_bytes(state.to_bytes(MODEL), SPEC, MODEL)
    for one, other in zip(state.arrays, found.arrays, strict=True):
        assert one.tobytes() == other.tobytes()
        assert other.flags.writeable
    assert found.spec == SPEC


def test_any_flipped_bit_is_noticed() -> None:
    for bit in range(8 * len(BLOB)):
        damaged = bytearray(BLOB)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StateError):
            MemoryState.from_bytes(bytes(damaged), SPEC, MODEL)


def test_a_state_cut_short_anywhere_is_noticed() -> None:
    for length in range(len(BLOB)):
        with pytest.raises(StateError):
            MemoryState.from_bytes(BLOB[:length], SPEC, MODEL)


def test_a_state_with_something_behind_it_is_noticed() -> None:
    with pytest.raises(StateError, match="bytes"):
        MemoryState.from_bytes(BLOB + b"\0\0\0\0", SPEC, MODEL)


def test_a_state_of_another_model_is_refused_and_both_are_named() -> None:
    other = hashlib.sha256(b"another model").hexdigest()
    with pytest.raises(StateError) as refusal:
        MemoryState.from_bytes(BLOB, SPEC, other)
    assert MODEL[:12] in refusal.value.message
    assert other[:12] in refusal.value.message


def test_a_state_of_another_size_is_refused() -> None:
    larger = StateSpec(("memory",), ((1, 2, 4, 30),))
    with pytest.raises(StateError, match="bytes"):
        MemoryState.from_bytes(BLOB, larger, MODEL)


@pytest.mark.parametrize(
    "arrays",
    [
        (np.zeros((1, 2, 4, 3), np.float32),),
        (np.zeros((1, 2, 4, 3), np.float64), np.zeros((1, 2, 3, 3), np.float32)),
        (np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 2, 3, 3), np.float32)),
    ],
)
def test_arrays_that_the_model_does_not_know_are_refused(arrays: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(StateError):
        MemoryState(SPEC, arrays)


def test_the_norm_is_that_of_the_key_value_memory_alone() -> None:
    memory = np.zeros((1, 2, 4, 3), np.float32)
    memory[0, 0, 0, 0], memory[0, 1, 2, 1] = 3.0, 4.0
    state = MemoryState(SPEC, (memory, np.full((1, 2, 3, 3), 9.0, np.float32)))
    assert state.norm() == pytest.approx(5.0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_seen(poison: float) -> None:
    sensory = np.zeros((1, 2, 3, 3), np.float32)
    assert MemoryState(SPEC, (np.zeros((1, 2, 4, 3), np.float32), sensory)).is_finite()
    sensory = sensory.copy()
    sensory[0, 1, 2, 2] = poison
    assert not MemoryState(SPEC, (np.zeros((1, 2, 4, 3), np.float32), sensory)).is_finite()
