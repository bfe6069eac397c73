"""The sample clip in every transfer syntax: how it was read, and whether another decoder agrees.

    python -m benchmarks.ingest_variants

Foreign programs write each variant (DCMTK, GDCM, FFmpeg, OpenJPH) and decode it again; the largest
difference is between their pixels and ours, in grey values of 0 to 255. Prints a table in Markdown.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from benchmarks.ingest_table import ef_of, row
from model import load_predictor
from server.ingest import IngestError, open_clip, sample_path
from tests.server.ingest.making import run, save, tool, ultrasound

HEADINGS = (
    "transfer syntax", "written by", "read as", "frames", "time base", "notes", "ms",
    "other decoder", "largest difference", "EF",
)  # fmt: skip
Grey = NDArray[np.uint8]

ROOT = "1.2.840.10008."
NATIVE = {"1.2": "+ti", "1.2.1": "+te", "1.2.2": "+tb", "1.2.1.99": "+td"}
JPEG = {"1.2.4.50": "+eb", "1.2.4.51": "+ee", "1.2.4.57": "+el", "1.2.4.70": "+e1"}
JPEG_LS = {"1.2.4.80": "+el", "1.2.4.81": "+en"}
JPEG_2000: dict[str, tuple[str, ...]] = {"1.2.4.90": (), "1.2.4.91": ("--lossy", "-q", "40")}
HIGH_THROUGHPUT = ("1.2.4.201", "1.2.4.202")
JPEG_XL = {
    "1.2.4.110": "JPEG XL Lossless", "1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.4.112": "JPEG XL",
}  # fmt: skip
H264 = ["-c:v", "libx264", "-crf", "12"]
HEVC = ["-c:v", "libx265", "-crf", "12", "-x265-params", "log-level=none"]
MPEG_2 = ["-c:v", "mpeg2video", "-q:v", "2"]
VIDEO = {
    "1.2.4.100": ("mpeg2video", MPEG_2), "1.2.4.100.1": ("mpeg2video", MPEG_2),
    "1.2.4.101": ("mpeg", MPEG_2),
    "1.2.4.102": ("h264", H264), "1.2.4.102.1": ("h264", H264), "1.2.4.103": ("mpegts", H264),
    "1.2.4.104": ("h264", H264), "1.2.4.104.1": ("mp4", H264), "1.2.4.105": ("h264", H264),
    "1.2.4.106": ("h264", H264), "1.2.4.107": ("hevc", HEVC),
    "1.2.4.108": ("hevc", [*HEVC, "-pix_fmt", "yuv420p10le"]),
}  # fmt: skip
"""How FFmpeg writes the stream of each syntax, by the end of its UID."""


def main() -> None:
    """Print one row for every transfer syntax."""
    with open_clip(sample_path()) as clip:
        frames_THW = np.array([frame.pixels_HW for frame in clip.frames])
    predictor = load_predictor(threads=os.cpu_count() or 1)
    print(f"| {' | '.join(HEADINGS)} |")
    print("| --- " * len(HEADINGS) + "|")
    for end, (writer, other, make) in variants(frames_THW).items():
        name = JPEG_XL.get(end) or pydicom.uid.UID(ROOT + end).name
        with tempfile.TemporaryDirectory() as folder:
            try:
                path, second_THW = make(Path(folder))
            except pytest.skip.Exception as missing:
                cells = [writer, f"not made: {missing.msg}", *["" for _ in HEADINGS[3:]]]
            else:
                read_as, count, _, _, base, notes, took_ms = (row(path) + [""] * 6)[:7]
                told = difference(path, second_THW)
                cells = [writer, read_as, count, base, notes, took_ms, other, told]
                cells.append(ef_of(path, predictor))
        print(f"| {name} (`{ROOT}{end}`) | {' | '.join(cells)} |", flush=True)


Made = tuple[Path, Grey | None]
Variant = tuple[str, str, Callable[[Path], Made]]
"""Who writes it, who decodes it again, and what makes the file and those pixels in a folder."""


def variants(frames_THW: Grey) -> dict[str, Variant]:
    """Every transfer syntax, by its UID less the prefix of all."""
    every: dict[str, Variant] = {}
    for end, option in NATIVE.items():
        make = partial(dcmtk, frames_THW, ("dcmconv", option), "")
        every[end] = ("dcmconv", "as written", make)
    every["1.2.5"] = ("dcmcrle", "dcmdrle", partial(dcmtk, frames_THW, ("dcmcrle",), "dcmdrle"))
    for writer, other, options_of in (
        ("dcmcjpeg", "dcmdjpeg", JPEG),
        ("dcmcjpls", "dcmdjpls", JPEG_LS),
    ):
        for end, option in options_of.items():
            every[end] = (writer, other, partial(dcmtk, frames_THW, (writer, option), other))
    for end, options in JPEG_2000.items():
        every[end] = ("gdcmconv", "gdcmconv", partial(gdcm, frames_THW, options))
    for end in HIGH_THROUGHPUT:
        every[end] = ("ojph_compress", "as written", partial(openjph, frames_THW, ROOT + end))
    for end, (container, how) in VIDEO.items():
        every[end] = ("ffmpeg", "ffmpeg", partial(ffmpeg, frames_THW, ROOT + end, container, how))
    for end in JPEG_XL:
        every[end] = ("its UID alone", "", partial(named_only, frames_THW, ROOT + end))
    return every


def native(folder: Path, frames_THW: Grey) -> Path:
    """The frames as they are, to be written anew by others."""
    return save(ultrasound(frames_THW, FrameTime="33.33"), folder / "native")


def pixels_of(path: Path) -> Grey:
    """What pydicom finds in a file that needs no decoder."""
    pixels: Any = pydicom.dcmread(path).pixel_array
    return np.asarray(pixels, np.uint8)


def dcmtk(frames_THW: Grey, writer: tuple[str, ...], again: str, folder: Path) -> Made:
    """Written by a DCMTK program, and by another brought back to plain pixels."""
    run(*writer, native(folder, frames_THW), folder / "clip")
    if not again:
        return folder / "clip", frames_THW
    run(again, folder / "clip", folder / "decoded")
    return folder / "clip", pixels_of(folder / "decoded")


def gdcm(frames_THW: Grey, options: tuple[str, ...], folder: Path) -> Made:
    """JPEG 2000 by GDCM, there and back."""
    run("gdcmconv", "--j2k", *options, native(folder, frames_THW), folder / "clip")
    run("gdcmconv", "--raw", folder / "clip", folder / "decoded")
    return folder / "clip", pixels_of(folder / "decoded")


def openjph(frames_THW: Grey, uid: str, folder: Path) -> Made:
    """High-throughput JPEG 2000 by OpenJPH, without loss."""
    coded = []
    for frame_HW in frames_THW:
        rows, columns = frame_HW.shape
        (folder / "in.pgm").write_bytes(
            f"P5\n{columns} {rows}\n255\n".encode() + frame_HW.tobytes()
        )
        run(
            "ojph_compress",
            "-i",
            folder / "in.pgm",
            "-o",
            folder / "out.j2c",
            "-reversible",
            "true",
        )
        coded.append((folder / "out.j2c").read_bytes())
    made = ultrasound(frames_THW, FrameTime="33.33")
    return save(made, folder / "clip", uid, coded), frames_THW


def ffmpeg(frames_THW: Grey, uid: str, container: str, options: list[str], folder: Path) -> Made:
    """A video stream inside DICOM, and what the program itself decodes of it."""
    rows, columns = frames_THW.shape[1:]
    program, stream = tool("ffmpeg"), folder / "stream"
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{columns}x{rows}", "-r", "30", "-i", "-"]
    how = [*raw, "-pix_fmt", "yuv420p", *options, "-f", container, str(stream)]
    subprocess.run([program, "-v", "error", *how], input=frames_THW.tobytes(), check=True)
    back = [
        "-i",
        str(stream),
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "gray",
        "-",
    ]
    told = subprocess.run([program, "-v", "error", *back], check=True, capture_output=True).stdout
    colours_THW3 = np.repeat(frames_THW[..., None], 3, axis=3)
    made = ultrasound(colours_THW3, "YBR_PARTIAL_420", FrameTime="33.33")
    even = stream.read_bytes() + b"\0" * (stream.stat().st_size % 2)
    decoded_THW = np.frombuffer(told, np.uint8).reshape(-1, rows, columns)
    return save(made, folder / "clip", uid, [even]), decoded_THW


def named_only(frames_THW: Grey, uid: str, folder: Path) -> Made:
    """What only says that it is of a syntax: it is refused before its frames are looked at."""
    stand_in = ROOT + "1.2.4.100"  # as long; pydicom writes no syntax that it does not know
    path = save(ultrasound(frames_THW), folder / "clip", stand_in, [b"\xff\x0a" * 32])
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), uid.encode()))
    return path, None


def difference(path: Path, second_THW: Grey | None) -> str:
    """The largest difference from the other decoder's pixels."""
    if second_THW is None:
        return ""
    try:
        with open_clip(path) as clip:
            ours_THW = np.array([frame.pixels_HW for frame in clip.frames], np.int16)
    except IngestError as refusal:
        return str(refusal.code)
    if ours_THW.shape != second_THW.shape:
        return f"shapes {ours_THW.shape} and {second_THW.shape}"
    return str(int(np.abs(ours_THW - second_THW).max()))


if __name__ == "__main__":
    main()
