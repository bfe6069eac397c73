"""What the memory is good for: recovery after a pause, bad frames, and streams without an end.

    python benchmarks/stability.py DATA [--frames 10000] [--patients 2]

DATA is a folder in the A4C PNG layout of ``docs/training.md``. The long stream beats between a
patient's two stills and is black for 60 frames of every 1,000.
"""

import argparse
import os
import time
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import Frame, Mask, Predictor, Region, StreamState, load_predictor, to_source_labels
from model.training.clips import Patient, place_patient, read_pair, render
from model.training.evaluate import overlap, read_annotated
from model.training.synthesis import contraction

Image = NDArray[np.uint8]
Truth = NDArray[np.bool_]

BLACK_FRAMES = 60
AGAIN_FRAMES = 10
BEAT_FRAMES = 27
LONG_SIDE = 144


def lv_dice(mask: Mask, truth_HW: Truth) -> float:
    """Dice of the left ventricle."""
    return overlap(to_source_labels(mask) == 1, truth_HW)[0]


def run(predictor: Predictor, images: list[Image], state: StreamState) -> tuple[Mask, StreamState]:
    """Feed some frames; returns the last mask and the state after it."""
    mask = None
    for image in images:
        mask, state = predictor.step(Frame(0, None, image), state)
    assert mask is not None
    return mask, state


def recovery(predictor: Predictor, data: Path, stills: int) -> None:
    """Score stills about two seconds of black, and a bad frame with and without memory."""
    rng = np.random.default_rng(0)
    before, again, dark, remembered, alone = [], [], [], [], []
    for still in islice(read_annotated(data), 0, 2 * stills, 2):
        image, truth = still.image_HW, still.labels_HW == 1
        mask, state = run(predictor, [image] * 20, predictor.start())
        before.append(lv_dice(mask, truth))
        speckle = 0.2 * (0.3 + rng.rayleigh(0.8, image.shape))
        bad = (image * speckle).clip(0, 255).astype(np.uint8)
        remembered.append(lv_dice(run(predictor, [bad], state)[0], truth))
        assert state.fit is not None
        fresh = predictor.start(state.fit.region)
        alone.append(lv_dice(run(predictor, [bad], fresh)[0], truth))
        mask, state = run(predictor, [np.zeros_like(image)] * BLACK_FRAMES, state)
        dark.append(mask.presence)
        scores = []
        for _ in range(AGAIN_FRAMES):
            mask, state = run(predictor, [image], state)
            scores.append(lv_dice(mask, truth))
        again.append(scores)
    print(f"LV Dice at frame 20: {np.mean(before):.4f}")
    print(f"presence after {BLACK_FRAMES} black frames, highest: {np.max(dark):.3f}")
    print("LV Dice on the frames after:", np.mean(again, axis=0).round(4).tolist())
    print(f"one bad frame: {np.mean(remembered):.4f} with memory, {np.mean(alone):.4f} without")


def resident_mib() -> float:
    """Memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def long_stream(predictor: Predictor, patient: Patient, frames: int) -> None:
    """Compare the first beats with the last ones, in Dice and in time."""
    axis = np.arange(2 * LONG_SIDE, dtype=np.float32)
    grid_HW2 = np.stack(np.meshgrid(axis, axis), axis=-1)
    beat = [
        render(patient, float(contraction(np.array(t / BEAT_FRAMES))), grid_HW2)
        for t in range(BEAT_FRAMES)
    ]
    images = [np.rint(image).clip(0, 255).astype(np.uint8) for image, _ in beat]
    truths = [labels.argmax(axis=-1) == 1 for _, labels in beat]
    state = predictor.start(Region(0, 0, LONG_SIDE, LONG_SIDE))
    scores, spent_ms, early_mib = np.full(frames, np.nan), np.empty(frames), 0.0
    for t in range(frames):
        is_black = 500 <= t % 1000 < 500 + BLACK_FRAMES
        image = images[t % BEAT_FRAMES] * (not is_black)
        started = time.perf_counter()
        mask, state = predictor.step(Frame(t, None, image.astype(np.uint8)), state)
        spent_ms[t] = 1000 * (time.perf_counter() - started)
        if not is_black:
            scores[t] = lv_dice(mask, truths[t % BEAT_FRAMES])
        if t == min(1000, frames - 1):
            early_mib = resident_mib()
    first, last = np.nanmean(scores[20:74]), np.nanmean(scores[-54:])
    print(f"{patient.name}: LV Dice {first:.4f} from frame 20, {last:.4f} at frame {frames}")
    print(f"  memory norm {state.memory.norm():.2f} after the last frame")
    print(f"  a step {np.median(spent_ms[20:1000]):.2f} ms, {np.median(spent_ms[-1000:]):.2f} ms")
    print(f"  process {early_mib:.1f} MiB at frame 1,000, {resident_mib():.1f} MiB at the end")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--patients", type=int, default=2, help="of the long streams")
    options = parser.parse_args()
    predictor = load_predictor(threads=os.cpu_count() or 1)
    recovery(predictor, options.data, 20)
    valid = options.data / "valid"
    names = sorted({path.name.split("_")[0] for path in valid.glob("*.png")})
    for name in names[3 : 3 + options.patients]:
        ed, es = (read_pair(valid, f"{name}_4CH_{phase}") for phase in ("ED", "ES"))
        assert ed is not None
        assert es is not None
        long_stream(predictor, place_patient(name, ed, es, 2 * LONG_SIDE), options.frames)


if __name__ == "__main__":
    main()
