"""Every file of a folder: how it was read or why not, beside what plain pydicom takes for it.

    python benchmarks/ingest_table.py ../shared/data/ultrasound
    python benchmarks/ingest_table.py --long

The first prints a table in Markdown. The second makes a cine of 850 JPEG frames of 600 x 800 pixels
in a temporary folder, and says how long it takes to read and how much memory that takes.
"""

import argparse
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage, generate_uid

from model import EchoError, Predictor, load_predictor
from server.ingest import Clip, IngestError, open_clip
from server.study import analyse_clip

LONG_FRAMES, LONG_ROWS, LONG_COLUMNS = 850, 600, 800
CLIPS = {".dcm", ".mp4", ".mov", ".avi", ".gif", ".zip"}
HEADINGS = ("file", "read as", "frames", "size", "spacing mm", "time base", "notes", "ms", "EF")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--long", action="store_true", help="read a cine of 850 frames")
    arguments = parser.parse_args()
    if arguments.long:
        measure_long_cine()
    elif arguments.folder is not None:
        print_table(arguments.folder)
    else:
        parser.error("a folder or --long is wanted")


def print_table(folder: Path) -> None:
    """Print one row for every file that could be a clip."""
    print(f"| {' | '.join([*HEADINGS, 'pydicom ms'])} |")
    print("| --- " * (len(HEADINGS) + 1) + "|")
    predictor = load_predictor(threads=os.cpu_count() or 1)
    for path in sorted(folder.rglob("*")):
        if path.suffix in CLIPS or path.name.startswith("US-"):
            ef = ef_of(path, predictor)
            cells = [str(path.relative_to(folder)), *row(path), ef, pydicom_ms(path)]
            print(f"| {' | '.join(cells)} |")


def row(path: Path) -> list[str]:
    """Read a file twice, the second time warm, and say what came out."""
    try:
        read(path)
        started = time.perf_counter()
        clip, count = read(path)
    except IngestError as refusal:
        return [f"refused: {refusal.code}", *["" for _ in HEADINGS[2:-1]]]
    took_ms = 1000 * (time.perf_counter() - started)
    spacing = "unknown" if clip.spacing_mm is None else "{:.3f} x {:.3f}".format(*clip.spacing_mm)
    notes = [*clip.warnings, *(["colour"] if clip.colour_overlay else [])]
    notes += ["fan"] if clip.sector else []
    return [
        clip.encoding,
        str(count),
        "{} x {}".format(*clip.size),
        spacing,
        clip.time_base.source or "unknown",
        ", ".join(notes),
        f"{took_ms:.0f}",
    ]


def ef_of(path: Path, predictor: Predictor) -> str:
    """The EF with its interval, or why there is none."""
    try:
        ef = analyse_clip(path, predictor).document["ef"]
    except EchoError as refusal:
        return str(refusal.code)
    if ef["percent"] is None:
        return "withheld: " + ", ".join(ef["reasons"])
    low, high = ef["interval"]
    return f"{ef['percent']:.0f} ({low:.0f} to {high:.0f})"


def read(path: Path) -> tuple[Clip, int]:
    """Open a clip and read all its frames."""
    with open_clip(path) as clip:
        return clip, sum(1 for _ in clip.frames)


def pydicom_ms(path: Path) -> str:
    """How long pydicom takes to decode all pixels, its second time; else what it raises."""
    took_ms = ""
    for _ in range(2):
        started = time.perf_counter()
        try:
            with warnings.catch_warnings(action="ignore"):
                _ = pydicom.dcmread(path).pixel_array
        except Exception as error:  # noqa: BLE001  # whatever it raises is the finding
            return type(error).__name__
        took_ms = f"{1000 * (time.perf_counter() - started):.0f}"
    return took_ms


def measure_long_cine() -> None:
    """Read a long cine frame by frame, then decode the same file with pydicom."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_long_cine(Path(folder) / "clip.dcm")
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        _, count = read(path)
        took_s = time.perf_counter() - started
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
        print(f"{count} frames of {LONG_ROWS} x {LONG_COLUMNS}, {path.stat().st_size >> 20} MiB")
        print(f"read in {took_s:.2f} s; peak memory grew by {grown_mib:.0f} MiB")
        print(f"pydicom decodes the same file in {pydicom_ms(path)} ms")


def write_long_cine(path: Path) -> Path:
    """Write speckle in a moving fan as colour JPEG, as scanners do."""
    rng = np.random.default_rng(1)
    row, column = np.mgrid[:LONG_ROWS, :LONG_COLUMNS]
    fan = np.abs(column - LONG_COLUMNS / 2) < row * 0.6
    frames = []
    for index in range(32):
        wave = (
            90
            + 60 * np.sin(row / 30 + index / 5)
            + cv2.GaussianBlur(rng.normal(0, 60, row.shape), (0, 0), 1.5)
        )
        grey = np.where(fan, np.clip(wave, 0, 255), 0).astype(np.uint8)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))[1].tobytes()
        frames.append(encoded + b"\0" * (len(encoded) % 2))
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = UltrasoundMultiFrameImageStorage, generate_uid()
    made.Modality, made.FrameTime, made.NumberOfFrames = "US", "20", LONG_FRAMES
    made.Rows, made.Columns, made.SamplesPerPixel = LONG_ROWS, LONG_COLUMNS, 3
    made.PlanarConfiguration, made.PhotometricInterpretation = 0, "YBR_FULL_422"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = encapsulate([frames[index % 32] for index in range(LONG_FRAMES)])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(JPEGBaseline8Bit)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


if __name__ == "__main__":
    main()
