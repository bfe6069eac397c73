"""What the weights make of a clip that is not as it should be: the model card's picture.

    python -m benchmarks.failures weights/failures.webp [--weights NAME]

The sample clip is spoilt in several ways, each streamed for 20 frames. The last one is drawn with
its outlines, the presence output, and what the server says of the frame.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model import Frame, Reading, load_predictor, measure_frame
from server.commands.bench import jpegs_of
from server.export.pen import NOTICE, PAGE, SOFT, STRUCTURE_COLOURS, TEXT, Canvas, Pen
from server.export.words import quality_in_words

FRAMES = 20
SCALE, MARGIN_PX, WORDS_PX, COLUMNS = 2, 12, 84, 3
WEBP_QUALITY = 60

Image = NDArray[np.uint8]


def _turned(image_HW: Image, degrees: float) -> Image:
    rows, columns = image_HW.shape
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image_HW, turn, (columns, rows)), np.uint8)


def _enlarged(image_HW: Image, top: int, bottom: int, left: int, right: int) -> Image:
    rows, columns = image_HW.shape
    return np.asarray(cv2.resize(image_HW[top:bottom, left:right], (columns, rows)), np.uint8)


def _noisy(image_HW: Image) -> Image:
    noise_HW = np.random.default_rng(0).normal(0.0, 60.0, image_HW.shape)
    return (image_HW + noise_HW * (image_HW > 0)).clip(0, 255).astype(np.uint8)


def _half_hidden(image_HW: Image) -> Image:
    hidden_HW = image_HW.copy()
    hidden_HW[:, : image_HW.shape[1] // 2] = 0
    return hidden_HW


SPOILT: dict[str, Callable[[Image], Image]] = {
    "as recorded": lambda image_HW: image_HW,
    "mirrored": lambda image_HW: np.ascontiguousarray(image_HW[:, ::-1]),
    "blurred": lambda image_HW: np.asarray(cv2.GaussianBlur(image_HW, (0, 0), 6.0), np.uint8),
    "enlarged, apex cut off": lambda image_HW: _enlarged(image_HW, 60, 200, 90, 230),
    "half of the fan without contact": _half_hidden,
    "turned by 60 degrees": lambda image_HW: _turned(image_HW, 60.0),
    "upside down": lambda image_HW: _turned(image_HW, 180.0),
    "hardly any gain": lambda image_HW: image_HW // 8,
    "very noisy": _noisy,
}


def draw(name: str, image_HW: Image, reading: Reading) -> Canvas:
    """One picture with its outlines, and below it what the server says."""
    rows, columns = image_HW.shape
    canvas = np.full((SCALE * rows + WORDS_PX, SCALE * columns, 3), PAGE, np.uint8)
    large_HW = cv2.resize(image_HW, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    canvas[: SCALE * rows] = large_HW[..., None]
    pen = Pen(canvas)
    for structure, colour in STRUCTURE_COLOURS.items():
        for line_P2 in reading.contours[structure]:
            draw_line = pen.dashes if structure == "atrium" else pen.line
            draw_line(SCALE * (line_P2[:, ::-1].astype(np.float64) + 0.5) - 0.5, colour, 2)
    y = SCALE * rows + 30
    pen.text(name, MARGIN_PX, y, 22, TEXT, is_bold=True)
    right = canvas.shape[1] - MARGIN_PX
    pen.text(f"presence {reading.presence:.2f}", right, y, 18, SOFT, "right")
    state, reasons = reading.quality.state, reading.quality.reasons[:1]
    said = quality_in_words(state, reasons) or "Good enough to measure."
    pen.text(said, MARGIN_PX, y + 32, 18, SOFT if state == "pass" else NOTICE)
    return canvas


def sheet(weights: str | None) -> Canvas:
    """All pictures, the reading order from left to right and down."""
    predictor = load_predictor(weights, threads=1)
    frames = [cv2.imdecode(np.frombuffer(each, np.uint8), 0) for each in jpegs_of(None)]
    tiles = []
    for name, spoil in SPOILT.items():
        state = predictor.start()
        for seq in range(FRAMES):
            image_HW = spoil(np.asarray(frames[seq % len(frames)], np.uint8))
            mask, state = predictor.step(Frame(seq, None, image_HW), state)
        reading = measure_frame(mask, None)
        sys.stdout.write(
            f"{name}: presence {reading.presence:.2f}, {reading.quality.state} "
            f"{', '.join(reading.quality.reasons)}\n"
        )
        tiles.append(draw(name, image_HW, reading))
    rows = [np.hstack(tiles[k : k + COLUMNS]) for k in range(0, len(tiles), COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights")
    arguments = parser.parse_args()
    bgr_HW3 = cv2.cvtColor(sheet(arguments.weights), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(arguments.out), bgr_HW3, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])


if __name__ == "__main__":
    main()
