import hashlib
import json
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.backends.base import Backend
from model.backends.openvino import OpenVinoBackend
from model.errors import FrameError, StateError, WeightsError
from model.frame import Frame, Mask, Region
from model.predictor import Predictor, StreamState, load_predictor, self_test_frame
from model.state import MemoryState, StateSpec

ROOT = Path(__file__).resolve().parents[2]


def a_clip(frames: int, seed: int, size: tuple[int, int] = (120, 160)) -> list[Frame]:
    """A fan of speckle with a dark ellipse that beats."""
    rows, cols = np.mgrid[: size[0], : size[1]].astype(np.float64)
    fan_HW = np.abs(cols - size[1] / 2) < 0.55 * (rows - 4)
    rng = np.random.default_rng(seed)
    clip = []
    for seq in range(frames):
        wide = 0.18 * size[1] * (1.0 + 0.25 * np.cos(seq))
        is_blood_HW = np.hypot((rows - 66) / (1.6 * wide), (cols - 80) / wide) < 1.0
        grey_HW = np.where(is_blood_HW, 25.0, 110.0) * rng.uniform(0.6, 1.4, size)
        clip.append(Frame(seq, 40_000 * seq, (grey_HW * fan_HW).clip(0, 255).astype(np.uint8)))
    return clip


def stream(
    predictor: Predictor, frames: list[Frame], state: StreamState | None = None
) -> tuple[list[Mask], StreamState]:
    state = predictor.start() if state is None else state
    masks = []
    for frame in frames:
        mask, state = predictor.step(frame, state)
        masks.append(mask)
    return masks, state


def bits(mask: Mask) -> tuple[bytes, object, float]:
    return mask.probabilities_NHW.tobytes(), mask.fit, mask.presence


def same(one: list[Mask], other: list[Mask]) -> bool:
    return [bits(mask) for mask in one] == [bits(mask) for mask in other]


def test_the_same_frames_give_the_same_bits(tiny_predictor: Predictor) -> None:
    frames = a_clip(8, seed=1)
    masks, state = stream(tiny_predictor, frames)
    again, other = stream(tiny_predictor, frames)
    assert same(masks, again)
    assert state.to_bytes("00" * 32) == other.to_bytes("00" * 32)


def test_what_came_before_matters(tiny_predictor: Predictor) -> None:
    frames = a_clip(4, seed=1)
    with_past = stream(tiny_predictor, frames)[0][-1]
    fit_only = tiny_predictor.start(region=with_past.fit.region)
    without_past = tiny_predictor.step(frames[-1], fit_only)[0]
    assert without_past.fit == with_past.fit
    assert np.abs(with_past.probabilities_NHW - without_past.probabilities_NHW).max() > 1e-3


def test_a_mask_is_a_distribution_over_structures_and_background(
    tiny_predictor: Predictor,
) -> None:
    mask = stream(tiny_predictor, a_clip(3, seed=1))[0][-1]
    assert mask.probabilities_NHW.shape == (3, 48, 48)
    assert mask.probabilities_NHW.dtype == np.float32
    assert mask.probabilities_NHW.min() >= 0.0
    assert mask.probabilities_NHW.sum(axis=0).max() <= 1.0 + 1e-5
    assert 0.0 <= mask.presence <= 1.0


def test_a_step_leaves_the_state_that_it_was_given_alone(tiny_predictor: Predictor) -> None:
    frames = a_clip(5, seed=2)
    state = stream(tiny_predictor, frames[:3])[1]
    before = state.to_bytes("00" * 32)
    first = bits(tiny_predictor.step(frames[3], state)[0])
    tiny_predictor.step(frames[4], state)
    assert state.to_bytes("00" * 32) == before
    assert bits(tiny_predictor.step(frames[3], state)[0]) == first


@pytest.mark.parametrize("region", [None, Region(3, 21, 101, 117)])
def test_a_session_resumed_after_any_frame_goes_on_with_the_same_bits(
    tiny_predictor: Predictor, region: Region | None
) -> None:
    frames = [Frame(0, None, np.zeros((120, 160), np.uint8)), *a_clip(6, seed=3)]
    start = tiny_predictor.start(region, spacing_mm=(0.31, 0.17))
    whole, last = stream(tiny_predictor, frames, start)
    sha256 = tiny_predictor.model.sha256
    for cut in range(len(frames) + 1):
        before, state = stream(tiny_predictor, frames[:cut], start)
        resumed = tiny_predictor.resume(state.to_bytes(sha256))
        after, end = stream(tiny_predictor, frames[cut:], resumed)
        assert same(before + after, whole)
        assert end.to_bytes(sha256) == last.to_bytes(sha256)


def smaller(frame: Frame, grey: int = 0) -> Frame:
    """The same image at half of its size on a dark or grey screen, as after a change of layout."""
    pixels_HW = np.full_like(frame.pixels_HW, grey)
    pixels_HW[30:90, 40:120] = frame.pixels_HW[::2, ::2]
    return replace(frame, pixels_HW=pixels_HW)


def test_the_network_follows_a_sector_that_moved(tiny_predictor: Predictor) -> None:
    frames = a_clip(34, seed=3)
    before, state = stream(tiny_predictor, [smaller(each) for each in frames[:10]])
    after: list[Mask] = []
    while not state.misled_frames:
        mask, state = tiny_predictor.step(frames[len(after)], state)
        after.append(mask)
    assert len(after) - 1 <= state.misled_frames
    assert {mask.fit.region for mask in after[:-1]} == {before[0].fit.region}
    # The grid has moved under the memory, so the session begins anew.
    fresh, _ = tiny_predictor.step(
        frames[len(after) - 1], tiny_predictor.start(after[-1].fit.region)
    )
    assert bits(after[-1]) == bits(fresh)
    alone = stream(tiny_predictor, frames[:1])[0][0].fit.region
    for edge in ("top", "left", "height", "width"):
        assert getattr(after[-1].fit.region, edge) == pytest.approx(getattr(alone, edge), abs=6)
    mask, state = tiny_predictor.step(frames[-1], state)
    assert state.misled_frames == 0
    assert mask.fit == after[-1].fit


def test_a_declared_region_is_not_left(tiny_predictor: Predictor) -> None:
    region = Region(30, 40, 60, 80)
    masks, _ = stream(tiny_predictor, a_clip(40, seed=3), tiny_predictor.start(region))
    assert {mask.fit.region for mask in masks} == {region}


@pytest.mark.parametrize("grey", [0, 60])
def test_a_session_resumed_about_a_move_goes_on_with_the_same_bits(
    tiny_predictor: Predictor, grey: int
) -> None:
    frames = a_clip(40, seed=3)
    frames = [smaller(each, grey) for each in frames[:10]] + frames[10:]
    whole, last = stream(tiny_predictor, frames)
    assert whole[0].fit != whole[-1].fit
    sha256 = tiny_predictor.model.sha256
    for cut in range(0, len(frames), 3):
        before, state = stream(tiny_predictor, frames[:cut])
        assert cut not in (3, 6, 9) or state.background == grey
        resumed = tiny_predictor.resume(state.to_bytes(sha256))
        after, end = stream(tiny_predictor, frames[cut:], resumed)
        assert same(before + after, whole)
        assert end.to_bytes(sha256) == last.to_bytes(sha256)


def test_a_session_of_an_earlier_release_goes_on(tiny_predictor: Predictor) -> None:
    frames = a_clip(6, seed=3)
    state = stream(tiny_predictor, frames[:5])[1]
    saved = state.to_bytes(tiny_predictor.model.sha256)
    header = struct.Struct("<I32s")
    length, _ = header.unpack_from(saved)
    view = json.loads(saved[header.size :][:length])
    del view["lookout"], view["background"]
    text = json.dumps(view).encode()
    older = header.pack(len(text), hashlib.sha256(text).digest()) + text
    resumed = tiny_predictor.resume(older + saved[header.size + length :])
    assert bits(tiny_predictor.step(frames[5], resumed)[0]) == bits(
        tiny_predictor.step(frames[5], state)[0]
    )


def test_a_session_goes_on_in_another_process_with_the_same_bits(
    tiny_predictor: Predictor, tiny_weights: Path
) -> None:
    other = load_predictor("tiny", folder=tiny_weights, streams=2, threads=2, precision="f32")
    frames = a_clip(6, seed=3)
    state = stream(tiny_predictor, frames[:3])[1]
    moved = other.resume(state.to_bytes(tiny_predictor.model.sha256))
    assert same(stream(other, frames[3:], moved)[0], stream(tiny_predictor, frames[3:], state)[0])


def test_sessions_on_two_threads_get_the_bits_of_one_after_the_other(
    tiny_predictor: Predictor,
) -> None:
    clips = [a_clip(12, seed=seed) for seed in (4, 5, 6, 7)]
    alone = [stream(tiny_predictor, frames)[0] for frames in clips]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda frames: stream(tiny_predictor, frames)[0], clips))
    for one, other in zip(alone, at_once, strict=True):
        assert same(one, other)


def test_a_frame_of_another_size_is_refused_and_both_sizes_are_named(
    tiny_predictor: Predictor,
) -> None:
    state = stream(tiny_predictor, a_clip(1, seed=1))[1]
    with pytest.raises(FrameError) as refusal:
        tiny_predictor.step(Frame(1, None, np.zeros((160, 120), np.uint8)), state)
    assert "160x120" in refusal.value.message
    assert "120x160" in refusal.value.message


@pytest.mark.parametrize("region", [Region(120, 0, 4, 4), Region(0, 160, 4, 4)])
def test_a_declared_region_outside_the_frame_is_refused(
    tiny_predictor: Predictor, region: Region
) -> None:
    with pytest.raises(FrameError, match="outside the 120x160 px frame"):
        tiny_predictor.step(a_clip(1, seed=1)[0], tiny_predictor.start(region))


def test_a_declared_region_is_cut_to_the_frame_and_used(tiny_predictor: Predictor) -> None:
    state = tiny_predictor.start(Region(20, 30, 500, 500))
    mask, state = tiny_predictor.step(a_clip(1, seed=1)[0], state)
    assert mask.fit.region == Region(20, 30, 100, 130)
    assert state.is_locked


@pytest.mark.parametrize(
    "spacing_mm", [(0.0, 0.1), (0.1, -0.1), (float("nan"), 0.1), (0.1, float("inf"))]
)
def test_a_spacing_that_no_pixel_has_is_refused(
    tiny_predictor: Predictor, spacing_mm: tuple[float, float]
) -> None:
    with pytest.raises(FrameError, match="spacing"):
        tiny_predictor.start(spacing_mm=spacing_mm)


def test_black_frames_are_looked_at_whole_until_a_sector_shows(tiny_predictor: Predictor) -> None:
    black = Frame(0, None, np.zeros((120, 160), np.uint8))
    mask, state = tiny_predictor.step(black, tiny_predictor.start())
    assert mask.fit.region == Region(0, 0, 120, 160)
    assert not state.is_locked
    heart = a_clip(1, seed=1)[0]
    mask, state = tiny_predictor.step(heart, state)
    assert state.is_locked
    assert mask.fit.region != Region(0, 0, 120, 160)
    # the grid has moved under the memory, so the session begins anew
    fresh, _ = tiny_predictor.step(heart, tiny_predictor.start())
    assert bits(mask) == bits(fresh)


def test_one_bright_frame_moves_no_sector(tiny_predictor: Predictor) -> None:
    frames = a_clip(1, seed=1)
    bright = Frame(1, None, np.full((120, 160), 90, np.uint8))
    masks, _ = stream(tiny_predictor, [*frames, bright])
    assert masks[0].fit == masks[1].fit


@pytest.fixture(scope="module")
def saved(tiny_predictor: Predictor) -> bytes:
    state = stream(tiny_predictor, a_clip(2, seed=8))[1]
    return state.to_bytes(tiny_predictor.model.sha256)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(draw=st.data())
def test_any_flipped_bit_of_a_saved_session_is_noticed(
    tiny_predictor: Predictor, saved: bytes, draw: st.DataObject
) -> None:
    bit = draw.draw(st.integers(0, 8 * len(saved) - 1))
    damaged = bytearray(saved)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StateError):
        tiny_predictor.resume(bytes(damaged))


def test_any_flipped_bit_of_what_a_session_looks_at_is_noticed(
    tiny_predictor: Predictor, saved: bytes
) -> None:
    for bit in range(8 * (saved.index(b"GDKS") + 80)):
        damaged = bytearray(saved)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StateError):
            tiny_predictor.resume(bytes(damaged))


@given(blob=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_foreign_bytes_are_no_session(tiny_predictor: Predictor, blob: bytes) -> None:
    with pytest.raises(StateError):
        tiny_predictor.resume(blob)


def test_a_session_cut_short_is_no_session(tiny_predictor: Predictor, saved: bytes) -> None:
    for length in [*range(0, 600, 7), len(saved) - 1]:
        with pytest.raises(StateError):
            tiny_predictor.resume(saved[:length])


def test_a_session_of_other_weights_is_refused(tiny_predictor: Predictor, saved: bytes) -> None:
    other = Predictor(replace(tiny_predictor.model, sha256="ab" * 32), tiny_predictor.backend)
    with pytest.raises(StateError, match="of model"):
        other.resume(saved)


class BrokenBackend:
    """A network that has lost its mind."""

    name = "broken"
    spec = StateSpec(("memory",), ((1, 2),))

    def __init__(self, presence: float, number: float, probability: float) -> None:
        self.presence, self.number, self.probability = presence, number, probability

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        arrays = (np.array([[0.0, self.number]], np.float32),)
        maps_NHW = np.zeros((3, *image_11HW.shape[2:]), np.float32)
        maps_NHW[1, 2, 3] = self.probability
        return maps_NHW, self.presence, MemoryState(self.spec, arrays)


@pytest.mark.parametrize(
    ("presence", "number", "probability"),
    [(np.nan, 0.0, 0.0), (0.5, np.nan, 0.0), (0.5, np.inf, 0.0), (0.5, 0.0, np.nan)],
)
def test_an_answer_that_is_not_finite_ends_the_session(
    tiny_predictor: Predictor, presence: float, number: float, probability: float
) -> None:
    backend: Backend = BrokenBackend(presence, number, probability)
    broken = Predictor(tiny_predictor.model, backend)
    with pytest.raises(StateError, match="not finite"):
        broken.step(a_clip(1, seed=1)[0], broken.start())


def test_weights_answer_their_own_self_test(tiny_predictor: Predictor) -> None:
    assert tiny_predictor.self_test()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_shipped_weights_answer_their_self_test(threads: int) -> None:
    assert load_predictor(threads=threads).self_test()


def test_shipped_weights_with_one_layer_changed_fail_the_self_test(tmp_path: Path) -> None:
    shipped = load_predictor()
    network = onnx.load(shipped.model.path)
    (layer,) = (each for each in network.graph.initializer if "decoder.head.weight" in each.name)
    values = onnx.numpy_helper.to_array(layer)
    layer.CopyFrom(onnx.numpy_helper.from_array(-values, layer.name))
    path = tmp_path / "changed.onnx"
    onnx.save(network, path)
    backend = OpenVinoBackend(path, threads=1, streams=1)
    assert not Predictor(shipped.model, backend).self_test()


def test_a_self_test_of_another_shape_fails(tiny_predictor: Predictor) -> None:
    model = replace(tiny_predictor.model, self_test=((0.0,),))
    assert not Predictor(model, tiny_predictor.backend).self_test()


def test_the_self_test_clip_is_a_fixed_image_of_a_shrinking_ellipse() -> None:
    dark = [int((self_test_frame(seq).pixels_HW[60:110, 100] < 45).sum()) for seq in range(3)]
    assert self_test_frame(1).pixels_HW.tobytes() == self_test_frame(1).pixels_HW.tobytes()
    widths = [int((self_test_frame(seq).pixels_HW[85, 96:] < 45).sum()) for seq in range(3)]
    assert dark == [50, 50, 50]
    assert widths[0] > widths[1] > widths[2] > 0


def test_a_file_that_is_no_exported_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"step\.onnx is not an exported step"):
        OpenVinoBackend(path, threads=1, streams=1)


def test_the_serving_path_never_imports_torch(tiny_weights: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
import model
from model import Frame, load_predictor, measure_frame, to_source_labels
predictor = load_predictor(folder=Path({str(tiny_weights)!r}))
rows, cols = np.mgrid[:120, :160]
frame = Frame(0, 0, (90 * (abs(cols - 80) < 0.5 * rows)).astype(np.uint8))
mask, state = predictor.step(frame, predictor.start())
predictor.resume(state.to_bytes(predictor.model.sha256))
predictor.self_test()
to_source_labels(mask), measure_frame(mask, (0.3, 0.3))
extras = {{"torch", "onnx", "onnxscript", "safetensors", "matplotlib", "onnxruntime"}}
print(sorted(extras & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
