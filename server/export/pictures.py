"""A clip's pictures and the outlines in them, as a page shows them: frame by frame, and exact."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2

from model import Frame
from server.export.overlay import Findings

OUTLINES = "outlines.json"
JPEG_QUALITY = 92


def picture_name(index: int) -> str:
    """Name of a picture in the archive, by its place in the clip."""
    return f"{index}.jpg"


def write_pictures(path: Path, frames: Iterable[Frame], findings: Findings) -> None:
    """Write a zip of one JPEG a frame and of the outlines of all; memory stays bounded.

    Args:
        path: where to write.
        frames: the clip's frames once more.
        findings: what was found in them.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, frame in enumerate(frames):
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            _, jpeg = cv2.imencode(".jpg", frame.pixels_HW, quality)
            archive.writestr(picture_name(index), jpeg.tobytes())
        archive.writestr(OUTLINES, json.dumps(outlines(findings), separators=(",", ":")))


def outlines(findings: Findings) -> list[dict[str, Any]]:
    """Per frame the closed outlines of each structure, (row, column) to a tenth of a pixel."""
    return [
        {
            "seq": each.seq,
            "contours": {
                name: [line_P2.round(1).tolist() for line_P2 in lines]
                for name, lines in each.reading.contours.items()
            },
        }
        for each in findings.frames
    ]
