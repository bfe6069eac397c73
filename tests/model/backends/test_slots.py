"""States on the device: nobody's memory moves unasked, and whoever leaves leaves nothing behind.

Every test runs on the processor, and on a GPU where there is one; none needs an exported file.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from model.backends.slots import Row
from model.backends.torch import TorchBackend
from model.config import ModelConfig
from model.errors import StateError
from model.network import LiveNetwork
from model.state import MemoryState, StateSpec

SIDE = 48
ROWS = 4
FRAMES = 6
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]
MODEL = 32 * "ab"

Answer = tuple[NDArray[np.float32], float, MemoryState]
Make = Callable[..., TorchBackend]


@pytest.fixture(scope="module")
def parameters(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    network = LiveNetwork(tiny_config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("parameters") / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(params=DEVICES)
def make(
    request: pytest.FixtureRequest, parameters: Path, tiny_config: ModelConfig
) -> Iterator[Make]:
    """Makes a backend on the device under test."""

    def made(**options: object) -> TorchBackend:
        chosen = {"rows": ROWS, "slots": 6, "device": request.param} | options
        return TorchBackend(parameters, tiny_config, **chosen)

    yield made
    gc.collect()


def image(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 1, SIDE, SIDE), np.float32)


def state(spec: StateSpec, seed: int) -> MemoryState:
    rng = np.random.default_rng(seed)
    arrays = tuple(rng.uniform(-1, 1, shape).astype(np.float32) for shape in spec.shapes)
    return MemoryState(spec, arrays)


def bits(answer: Answer) -> tuple[bytes, float, tuple[bytes, ...]]:
    probabilities_NHW, presence, memory = answer
    return probabilities_NHW.tobytes(), presence, tuple(a.tobytes() for a in memory.arrays)


def stream(backend: TorchBackend, seed: int, before: MemoryState | None = None) -> list[bytes]:
    """Frames of one session, one after the other; everything that each left behind."""
    memory = before or MemoryState.zeros(backend.spec)
    found = []
    for number in range(FRAMES):
        answer = backend.step(image(100 * seed + number), memory)
        memory = answer[2]
        found.append(repr(bits(answer)).encode())
    return found


def pools(backend: TorchBackend) -> list[torch.Tensor]:
    return backend._slots._pools


def dice(one_NHW: NDArray[np.float32], other_NHW: NDArray[np.float32]) -> float:
    one, other = one_NHW > 0.5, other_NHW > 0.5
    return 2 * float((one & other).sum()) / max(1.0, float(one.sum() + other.sum()))


def answers_of(backend: TorchBackend) -> list[Answer]:
    memory, answers = MemoryState.zeros(backend.spec), []
    for number in range(FRAMES):
        answer = backend.step(image(number), memory)
        memory = MemoryState(backend.spec, answer[2].arrays)
        answers.append((answer[0].copy(), answer[1], memory))
    return answers


def test_a_step_is_that_of_the_reference_on_a_processor(
    make: Make, parameters: Path, tiny_config: ModelConfig
) -> None:
    reference = answers_of(TorchBackend(parameters, tiny_config))
    for ours, theirs in zip(answers_of(make()), reference, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4)
        assert ours[1] == pytest.approx(theirs[1], abs=1e-4)
        for one, other in zip(ours[2].arrays, theirs[2].arrays, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_reduced_precision_draws_the_same_masks(
    make: Make, parameters: Path, tiny_config: ModelConfig
) -> None:
    reference = answers_of(TorchBackend(parameters, tiny_config))
    found = answers_of(make(precision="bf16"))
    scores = [dice(ours[0], theirs[0]) for ours, theirs in zip(found, reference, strict=True)]
    assert min(scores) > 0.9


def test_recording_advances_nobodys_memory(make: Make) -> None:
    backend = make(rows=(1, 2, ROWS))
    assert all(not pool.any() for pool in pools(backend))


def test_a_recorded_run_is_bit_for_bit_the_plain_one_and_repeats_itself(make: Make) -> None:
    recorded, plain = make(), make(uses_graph=False)
    first = stream(recorded, 2)
    assert first == stream(plain, 2)
    assert first == stream(recorded, 2)
    assert first == stream(make(slots=0), 2)


def test_a_slot_is_zero_when_its_session_has_left_whatever_was_there_before(make: Make) -> None:
    backend = make(slots=2)
    expected = stream(backend, 3)
    with torch.inference_mode():
        for pool in pools(backend):
            pool.fill_(float("nan"))
    assert stream(backend, 3) == expected
    gc.collect()
    backend.step(image(0), MemoryState.zeros(backend.spec))
    gc.collect()
    for pool in pools(backend):
        used = pool[[0, 2, 3, 4, 5]]
        assert not used.isnan().any()
        assert not used.any()
        assert pool[1].isnan().all()


@pytest.mark.parametrize("fill", [0.5, np.nan, 1e30])
def test_whatever_a_neighbour_holds_changes_no_bit(make: Make, fill: float) -> None:
    backend = make(slots=2)
    mine: Row = (image(1), state(backend.spec, 1))

    def crowd(value: float) -> list[Row]:
        arrays = tuple(np.full(shape, value, np.float32) for shape in backend.spec.shapes)
        images = np.full((1, 1, SIDE, SIDE), value, np.float32)
        return [(images, MemoryState(backend.spec, arrays))] * (ROWS - 1)

    for place in range(ROWS):
        quiet, loud = crowd(0.0), crowd(fill)
        expected = backend.step_rows([*quiet[:place], mine, *quiet[place:]])[place]
        found = backend.step_rows([*loud[:place], mine, *loud[place:]])[place]
        assert bits(found) == bits(expected)


def test_a_state_that_is_not_finite_is_told_without_fetching_it(make: Make) -> None:
    backend = make()
    spoilt: Row = (np.full((1, 1, SIDE, SIDE), np.nan, np.float32), state(backend.spec, 1))
    sound: Row = (image(1), state(backend.spec, 2))
    answers = backend.step_rows([spoilt, sound])
    assert [answer[2].is_finite() for answer in answers] == [False, True]
    assert np.isfinite(answers[1][0]).all()


def test_the_order_of_sessions_in_a_run_changes_no_answer(make: Make) -> None:
    backend = make()
    rows: list[Row] = [(image(seed), state(backend.spec, seed)) for seed in range(3)]
    forth = backend.step_rows(rows)
    back = backend.step_rows(rows[::-1])[::-1]
    for one, other in zip(forth, back, strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-5)
        for ours, theirs in zip(one[2].arrays, other[2].arrays, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_state_goes_out_as_bytes_and_on_elsewhere_with_the_same_bits(make: Make) -> None:
    here, there = make(), make()
    memory = here.step(image(1), state(here.spec, 1))[2]
    blob = memory.to_bytes(MODEL)
    went_on = stream(here, 5, memory)
    assert stream(there, 5, MemoryState.from_bytes(blob, there.spec, MODEL)) == went_on


def test_a_state_that_a_later_frame_has_overwritten_is_refused_and_nobody_else_is(
    make: Make,
) -> None:
    backend = make()
    old = backend.step(image(1), MemoryState.zeros(backend.spec))[2]
    new = backend.step(image(2), old)[2]
    kept = [array.copy() for array in new.arrays]
    with pytest.raises(StateError, match="overwritten"):
        backend.step_rows([(image(3), new), (image(3), old)])
    with pytest.raises(StateError, match="overwritten"):
        old.to_bytes(MODEL)
    assert all(np.array_equal(a, b) for a, b in zip(kept, new.arrays, strict=True))


def test_more_sessions_than_slots_are_answered_all_the_same(make: Make) -> None:
    roomy, tight = make(slots=6), make(slots=1)
    found = []
    for backend in (roomy, tight):
        memories = [MemoryState.zeros(backend.spec)] * 3
        for number in range(FRAMES):
            rows = [(image(10 * seed + number), each) for seed, each in enumerate(memories)]
            answers = backend.step_rows(rows)
            memories = [answer[2] for answer in answers]
        found.append([bits(answer) for answer in answers])
    assert found[0] == found[1]


def test_slots_are_used_again(make: Make) -> None:
    backend = make(slots=2)
    for seed in range(5):
        answer = backend.step(image(seed), MemoryState.zeros(backend.spec))
        assert answer[2].held is not None
        del answer
        gc.collect()
    assert len(backend._slots._free) == 2


def test_a_run_takes_the_smallest_size_that_holds_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(rows=(1, 2, 4))
    sizes: list[int] = []
    plain = backend._slots._replay

    def replay(size: int) -> Sequence[torch.Tensor]:
        sizes.append(size)
        return plain(size)

    monkeypatch.setattr(backend._slots, "_replay", replay)
    for count in range(1, 5):
        backend.step_rows([(image(1), MemoryState.zeros(backend.spec))] * count)
    assert sizes == [1, 2, 4, 4]


def test_a_failing_run_leaves_nothing_of_a_session_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(slots=1)
    mine: Row = (image(1), state(backend.spec, 1))
    expected = bits(backend.step(*mine))
    with monkeypatch.context() as patch:
        patch.setattr(backend._slots, "_replay", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backend.step(*mine)
    gc.collect()
    assert not backend._slots._images.any()
    assert all(not pool.any() for pool in pools(backend))
    assert bits(backend.step(*mine)) == expected
