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

import cv2
import numpy as np
from numpy.typing import NDArray

from model import Frame, Mask, Predictor, Region, StreamState, load_predictor, to_source_labels
from model.training.clips import Patient, place_patient, read_pair, render
from model.training.evaluate import read_annotated
from model.training.scores import overlap
from model.training.synthesis import contraction

Image = NDArray[np.uint8]
Truth = NDArray[np.bool_]

BLACK_FRAMES = 60
PAUSE_FRAMES = 60
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


def interruptions(image: Image, other: Image, rng: np.random.Generator) -> dict[str, list[Image]]:
    """What comes between two views of one heart, by name, each ``PAUSE_FRAMES`` frames long."""
    rows = np.arange(image.shape[0])[:, None] / image.shape[0]
    haze = 160 * np.exp(-rows / 0.12) * rng.uniform(0.5, 1.0, (PAUSE_FRAMES, *image.shape))
    return {
        "2 s of black": [np.zeros_like(image)] * PAUSE_FRAMES,
        "probe lifted off": list(haze.astype(np.uint8)),
        "a frozen frame": [image] * PAUSE_FRAMES,
        "another patient's heart": [other] * PAUSE_FRAMES,
        "the same heart upside down": [np.ascontiguousarray(image[::-1])] * PAUSE_FRAMES,
    }


def recovery(predictor: Predictor, data: Path, stills: int) -> None:
    """Score end systole after an interruption, and a bad frame with and without memory."""
    rng = np.random.default_rng(0)
    before, uninterrupted, remembered, alone = [], [], [], []
    again: dict[str, list[list[float]]] = {}
    presence: dict[str, list[float]] = {}
    chosen = list(islice(read_annotated(data), 2 * stills))
    chosen, later = chosen[::2], chosen[1::2]
    for still, partner, stranger in zip(chosen, later, chosen[1:] + chosen[:1], strict=True):
        image, truth = still.image_HW, still.labels_HW == 1
        mask, state = run(predictor, [image] * 20, predictor.start())
        before.append(lv_dice(mask, truth))
        speckle = 0.2 * (0.3 + rng.rayleigh(0.8, image.shape))
        bad = (image * speckle).clip(0, 255).astype(np.uint8)
        remembered.append(lv_dice(run(predictor, [bad], state)[0], truth))
        assert state.fit is not None
        fresh = predictor.start(state.fit.region)
        alone.append(lv_dice(run(predictor, [bad], fresh)[0], truth))
        other = np.asarray(cv2.resize(stranger.image_HW, image.shape[::-1]), np.uint8)
        systole, truth = partner.image_HW, partner.labels_HW == 1
        uninterrupted.append(lv_dice(run(predictor, [systole] * AGAIN_FRAMES, state)[0], truth))
        for name, frames in interruptions(image, other, rng).items():
            mask, after = run(predictor, frames, state)
            presence.setdefault(name, []).append(mask.presence)
            scores = []
            for _ in range(AGAIN_FRAMES):
                mask, after = run(predictor, [systole], after)
                scores.append(lv_dice(mask, truth))
            again.setdefault(name, []).append(scores)
    print(f"LV Dice at frame 20: {np.mean(before):.4f}")
    print(f"end systole, uninterrupted: {np.mean(uninterrupted):.4f}")
    for name, rows in again.items():
        means = np.mean(rows, axis=0)
        print(
            f"after {name}: first frame {means[0]:.4f}, third {means[2]:.4f}, tenth {means[9]:.4f}"
        )
        low, high = np.mean(presence[name]), np.max(presence[name])
        print(f"  presence at its end {low:.3f} in the mean, {high:.3f} at most")
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
