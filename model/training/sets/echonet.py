"""EchoNet-Dynamic: ``FileList.csv``, ``VolumeTracings.csv`` and ``Videos/*.avi``.

Two frames of every video are traced, the cavity alone; some videos have no tracing, and some frames
more than one, of which the first counts. The pixels have no size: areas and volumes in centimetres
cannot be had from them. ``FrameHeight`` and ``FrameWidth`` are those of the source, not of the
file, and are not read.

Source:
    Ouyang et al. 2020, doi:10.1038/s41586-020-2145-8, and its published code: the first row of a
    frame's tracing is the long axis, the others are chords from apex to annulus; their ends are
    rounded, and the pixels inside the outline and on it are the mask.
"""

import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.training.sets.film import probes_of_film, read_stored
from model.training.sets.sight import cut, seen_served
from model.training.sets.study import (
    KNOWN_LV,
    DataSet,
    Recording,
    Study,
    check_still,
    missing_files,
)
from model.training.sets.text import read_table
from model.words import counted

LAYOUT = "EchoNet-Dynamic"
LIST, TRACINGS, VIDEOS = "FileList.csv", "VolumeTracings.csv", "Videos"
LIST_COLUMNS = ("FileName", "Split")
TRACING_COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")
LEAST_LINES = 3
"""A long axis and two chords: less has no area."""

SPLIT_WORDS = {"TRAIN": "train", "VAL": "valid", "TEST": "test"}

Chords = tuple[tuple[float, float, float, float], ...]
"""X1, Y1, X2 and Y2 of a frame's lines, the long axis first."""


def recognise_echonet(root: Path) -> bool:
    """Whether any of its tables is there."""
    return (root / LIST).is_file() or (root / TRACINGS).is_file()


def find_echonet(root: Path) -> DataSet:
    """List every traced video."""
    problems = missing_files([root / LIST, root / TRACINGS])
    if problems:
        return DataSet(LAYOUT, root, KNOWN_LV, (), tuple(problems))
    rows, wrong = _read_table(root / LIST, LIST_COLUMNS)
    problems += wrong
    traced, twice, wrong = _read_tracings(root / TRACINGS)
    problems += wrong
    studies, untraced = [], []
    for _, row in rows:
        stem = row["FileName"].removesuffix(".avi")
        video = root / VIDEOS / f"{stem}.avi"
        frames = traced.get(stem, {})
        split = SPLIT_WORDS.get(row["Split"].strip().upper())
        if split is None:
            problems.append(f"{root / LIST}: {stem} has the unknown split {row['Split']!r}")
        elif broken := missing_files([video]) or _check_length(video):
            problems += broken
        elif len(frames) < 2:
            untraced.append(stem)
        else:
            made = partial(read, video, tuple(sorted(frames.items())), _count(row))
            studies.append(Study(stem, stem, "4CH", split, (video,), len(frames), made))
    notes = []
    if untraced:
        few = ", ".join(untraced[:20])
        notes.append(f"{counted(len(untraced), 'video')} without two traced frames left out: {few}")
    if twice:
        few = ", ".join(twice[:20])
        notes.append(
            f"{counted(len(twice), 'frame')} traced again, the first tracing counts: {few}"
        )
    tables = (root / LIST, root / TRACINGS)
    return DataSet(LAYOUT, root, KNOWN_LV, tuple(studies), tuple(problems), tuple(notes), tables)


def _count(row: dict[str, str]) -> int:
    text = row.get("NumberOfFrames") or ""
    return int(float(text)) if text.replace(".", "", 1).isdigit() else 0


def _read_table(
    path: Path, columns: Sequence[str]
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The whole rows of a table with their lines' numbers, and what is wrong with it."""
    try:
        rows = read_table(path, columns)
    except FrameError as error:
        return [], [error.message]
    whole, problems = [], []
    for number, row in rows:
        if any(row[name] is None for name in columns):
            problems.append(f"{path} line {number} is cut off")
        else:
            whole.append((number, row))
    return whole, problems


def _read_tracings(path: Path) -> tuple[dict[str, dict[int, Chords]], list[str], list[str]]:
    """The lines of every traced frame of every video, by the video's name without its ending.

    Returns:
        With them the frames that are traced again, and what is wrong with the table.
    """
    rows, problems = _read_table(path, TRACING_COLUMNS)
    traced: dict[str, dict[int, list[tuple[float, float, float, float]]]] = {}
    for number, row in rows:
        try:
            frame = int(row["Frame"])
            x1, y1, x2, y2 = (float(row[name]) for name in ("X1", "Y1", "X2", "Y2"))
        except ValueError:
            problems.append(f"{path} line {number} holds no numbers: {row}")
            continue
        video = traced.setdefault(row["FileName"].removesuffix(".avi"), {})
        video.setdefault(frame, []).append((x1, y1, x2, y2))
    whole = {
        name: {frame: first_tracing(lines) for frame, lines in frames.items()}
        for name, frames in traced.items()
    }
    problems += [
        f"{path}: the tracing of {name} frame {frame} is cut off"
        for name, frames in whole.items()
        for frame, lines in frames.items()
        if len(lines) < LEAST_LINES
    ]
    twice = [
        f"{name} frame {frame}"
        for name, frames in traced.items()
        for frame, lines in frames.items()
        if len(whole[name][frame]) < len(lines)
    ]
    return whole, twice, problems


def first_tracing(lines: Sequence[tuple[float, float, float, float]]) -> Chords:
    """A frame's lines up to where another tracing of the same frame begins.

    A tracing begins with its long axis, and chords run across it: a line that runs along the first
    one, and is not much shorter, is another long axis.
    """
    along_L2 = np.array([(x2 - x1, y2 - y1) for x1, y1, x2, y2 in lines])
    length = float(np.hypot(*along_L2[0]))
    is_axis_L = np.abs(along_L2 @ along_L2[0]) > 0.5 * length**2
    axes = np.flatnonzero(is_axis_L[1:]) + 1
    return tuple(lines[: axes[0]] if axes.size else lines)


def _check_length(path: Path) -> list[str]:
    """Compare a file's length with what its RIFF header says, which a cut copy falls short of."""
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"AVI ":
        return [f"{path} is no AVI file"]
    wanted = 8 + int(struct.unpack("<I", head[4:8])[0])
    length = path.stat().st_size
    return [] if length >= wanted else [f"{path} is cut off: {length} of {wanted} bytes"]


def draw_tracing(chords: Chords, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The cavity as a label map: one end of every chord, then the other ends backwards, filled."""
    lines = np.array(chords[1:], np.float64).reshape(-1, 4)
    outline = np.rint(np.concatenate([lines[:, :2], lines[::-1, 2:]])).astype(np.int32)
    labels_HW = np.zeros(size, np.uint8)
    cv2.fillPoly(labels_HW, [outline], 1)
    # fillPoly also takes the pixels that the outline only touches.
    for row, col in np.argwhere(labels_HW):
        if cv2.pointPolygonTest(outline, (float(col), float(row)), False) < 0:
            labels_HW[row, col] = 0
    return labels_HW


def read(
    video: Path, traced: tuple[tuple[int, Chords], ...], count: int, between: bool = False
) -> Recording:
    """A video's frames between its two phases, in the order from end diastole to end systole.

    Which traced frame is which is told by the area, since the tables do not say it reliably.

    Args:
        video: the AVI file.
        traced: frame index and lines of every traced frame.
        count: frames that the file list promises, 0 where it does not say.
        between: also the frames between both, played backwards where systole comes first.

    Raises:
        FrameError: a video that is damaged, shorter than promised, or a tracing outside of it.
    """
    images, _ = read_stored(video)
    last = max(frame for frame, _ in traced)
    if len(images) < count or last >= len(images) or min(traced)[0] < 0:
        wanted = max(count, last + 1)
        raise FrameError(
            f"{video} holds {counted(len(images), 'frame')} where {wanted} are listed or traced"
        )
    size = images[0].shape[0], images[0].shape[1]
    masks = {frame: draw_tracing(chords, size) for frame, chords in traced}
    for frame, mask in masks.items():
        check_still(Path(f"{video} frame {frame}"), images[frame], mask)
    first = max(masks, key=lambda frame: int(masks[frame].sum()))
    end = min(masks, key=lambda frame: int(masks[frame].sum()))
    if first == end:
        raise FrameError(f"{video}: its traced frames have the same area, no phase can be told")
    step = 1 if first < end else -1
    order = list(range(first, end + step, step)) if between else [first, end]
    images, sight, _ = seen_served(images, probes_of_film(images), declared=[])
    return Recording(
        tuple(cut(images[k], sight) for k in order),
        (cut(masks[first], sight), cut(masks[end], sight)),
        (0, len(order) - 1),
        is_cropped=True,
    )
