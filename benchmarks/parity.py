"""The exported step against the network in torch, frame after frame: errors of masks and of EF.

    python -m benchmarks.parity [DATA] [--clips FILE ...] [--frames 300] [--weights NAME]

DATA is a folder in the A4C PNG layout of ``docs/training.md``. One stream is a validation patient
of it whose stills are made to beat, one the four-chamber clip inside pydicom played over and over,
and one each clip given. Every runtime and precision runs the same frames with its own state; torch
in float32 is the reference.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model import (
    BeatTracker,
    EchoError,
    Frame,
    Predictor,
    load_predictor,
    measure_frame,
)
from model.backends.choice import BackendName
from model.training.clips import place_patient, read_pair, render
from model.training.scores import overlap
from model.training.synthesis import contraction
from server.ingest import open_clip
from server.ingest.sample import read_sample

SIDE = 144
BEAT_FRAMES = 27
FRAME_US = 33_333
SPACING_MM = (1.0, 1.0)
WAYS: tuple[tuple[BackendName, str], ...] = (
    ("torch", "f32"),
    ("openvino", "f32"),
    ("onnxruntime", "f32"),
    ("torch", "bf16"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
)

Image = NDArray[np.uint8]


def beating(data: Path, frames: int) -> Iterator[Image]:
    """A patient's stills made to beat."""
    names = sorted({path.name.split("_")[0] for path in (data / "valid").glob("*.png")})
    pairs = [read_pair(data / "valid", f"{names[0]}_4CH_{phase}") for phase in ("ED", "ES")]
    ed, es = pairs
    assert ed is not None
    assert es is not None
    patient = place_patient(names[0], ed, es, 2 * SIDE)
    axis = np.arange(2 * SIDE, dtype=np.float32)
    grid_HW2 = np.stack(np.meshgrid(axis, axis), axis=-1)
    for t in range(frames):
        image_HW, _ = render(patient, float(contraction(np.array(t / BEAT_FRAMES))), grid_HW2)
        yield np.rint(image_HW).clip(0, 255).astype(np.uint8)


def sample(frames: int) -> Iterator[Image]:
    """The four-chamber clip inside pydicom, over and over."""
    jpegs = (np.frombuffer(each, np.uint8) for each in read_sample().jpegs)
    images = [np.asarray(cv2.imdecode(each, cv2.IMREAD_GRAYSCALE), np.uint8) for each in jpegs]
    for t in range(frames):
        yield images[t % len(images)]


def clip(path: Path, frames: int) -> Iterator[Image]:
    """Any file that the server reads, over and over."""
    with open_clip(path) as opened:
        images = [frame.pixels_HW for frame in islice(opened.frames, frames)]
    for t in range(frames):
        yield images[t % len(images)]


def run(predictor: Predictor, images: list[Image]) -> tuple[NDArray[np.float32], float | None]:
    """probabilities_TNHW of a stream and its EF."""
    # No region: the fan is looked for, as in a stream whose client declares none.
    state = predictor.start(None, SPACING_MM)
    tracker, found = BeatTracker(), []
    for t, image in enumerate(images):
        mask, state = predictor.step(Frame(t, FRAME_US * t, image), state)
        tracker.push(t, FRAME_US * t, measure_frame(mask, SPACING_MM))
        found.append(mask.probabilities_NHW)
    tracker.finish()
    return np.stack(found), tracker.ejection_fraction().percent


def report(name: str, images: list[Image], weights: str | None) -> None:
    """One line a way."""
    reference: tuple[NDArray[np.float32], float | None] | None = None
    for backend, precision in WAYS:
        try:
            predictor = load_predictor(weights, backend=backend, precision=precision, threads=2)
        except EchoError as error:
            print(f"| {name} | {backend} {precision} | {error} | | | | |")
            continue
        found = run(predictor, images)
        if reference is None:
            reference = found
        error_TNHW = np.abs(found[0] - reference[0])
        dice = [
            overlap(a > 0.5, b > 0.5)[0]
            for a, b in zip(found[0][:, 0], reference[0][:, 0], strict=True)
        ]
        percent = [None if ef is None else round(ef, 2) for ef in (found[1], reference[1])]
        print(
            f"| {name} | {backend} {precision} | {error_TNHW.max():.1e} | {error_TNHW.mean():.1e} "
            f"| {np.nanmean(dice):.5f} | {np.nanmin(dice):.5f} | {percent[0]} ({percent[1]}) |",
            flush=True,
        )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--weights")
    options = parser.parse_args()
    print("| stream | runtime | largest error | mean error | LV Dice | lowest | EF (reference) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    if options.data is not None:
        report("beating stills", list(beating(options.data, options.frames)), options.weights)
    for path in options.clips:
        report(path.name, list(clip(path, options.frames)), options.weights)
    report("sample clip", list(sample(options.frames)), options.weights)


if __name__ == "__main__":
    main()
